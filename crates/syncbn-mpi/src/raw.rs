//! The few calls of MPI that the transport makes, as safe functions. All unsafe code of the crate
//! is here. The content of messages is unknown here.
//!
//! Three rules keep it safe. Memory of a message under way belongs to the value that stands for it,
//! and leaks rather than being freed while MPI may still touch it. A communicator is never freed:
//! that would wait for its members, one of which may be gone. And nothing calls MPI outside its
//! life, between [`begin`] and [`end`].
#![allow(unsafe_code)]

mod comm;
mod request;

use std::ffi::c_char;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use mpi::ffi;

pub(crate) use comm::Comm;
pub(crate) use request::{Receiving, Sending};

/// Whether MPI may be called. Calls hold it for reading, so the end waits for them.
static ALIVE: RwLock<bool> = RwLock::new(false);

/// MPI's error of a failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {message}")]
pub struct Failure {
    /// The call's name.
    pub call: &'static str,
    /// The reason.
    pub message: String,
}

/// MPI has been initialized, for use from any thread.
pub(crate) fn begin() {
    *ALIVE.write().unwrap_or_else(PoisonError::into_inner) = true;
}

/// MPI is about to be finalized: from now on every call fails.
pub(crate) fn end() {
    *ALIVE.write().unwrap_or_else(PoisonError::into_inner) = false;
}

fn alive(call: &'static str) -> Result<RwLockReadGuard<'static, bool>, Failure> {
    let alive = ALIVE.read().unwrap_or_else(PoisonError::into_inner);
    if *alive { Ok(alive) } else { Err(Failure { call, message: "MPI is not running".to_owned() }) }
}

/// The text of an error code; only called while MPI runs.
fn check(call: &'static str, code: i32) -> Result<(), Failure> {
    // C's int and MPI_SUCCESS are the same in every implementation: the standard fixes 0.
    if code == 0 {
        return Ok(());
    }
    let mut text = [0u8; ffi::MPI_MAX_ERROR_STRING as usize];
    let mut len = 0;
    // SAFETY: the buffer has the length that MPI asks for; `len` is a live int.
    let status =
        unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast::<c_char>(), &mut len) };
    let text = text
        .get(..usize::try_from(len).unwrap_or(0))
        .filter(|_| status == 0)
        .unwrap_or(b"unknown error");
    Err(Failure { call, message: String::from_utf8_lossy(text).into_owned() })
}

/// Whether MPI may be called.
pub(crate) fn is_alive() -> bool {
    alive("MPI").is_ok()
}

/// Has `call` called when the program ends by C's `exit`, as Rust's programs do.
pub(crate) fn at_exit(call: extern "C" fn()) {
    unsafe extern "C" {
        fn atexit(call: extern "C" fn()) -> std::ffi::c_int;
    }
    // SAFETY: the signature is the C standard's; the function is never unloaded. Where there is no
    // place for it, the program ends as it would without.
    unsafe { atexit(call) };
}

/// Ends this process without what C's `exit` does, which may be under way.
pub(crate) fn exit_at_once(status: i32) -> ! {
    unsafe extern "C" {
        fn _exit(status: std::ffi::c_int) -> !;
    }
    // SAFETY: the signature is that of POSIX; the function can be called at any time.
    unsafe { _exit(status) }
}

/// Ends every process of the job. Does not wait for anyone.
pub(crate) fn abort(code: i32) {
    if alive("MPI_Abort").is_ok() {
        // SAFETY: MPI runs.
        unsafe { ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, code) };
    }
}
