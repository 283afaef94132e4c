//! The few calls of MPI that the transport makes, as safe functions. All unsafe code of the crate
//! is here. The content of messages is unknown here.
//!
//! Three rules keep it safe. Memory of a message under way belongs to the value that stands for it,
//! and leaks rather than being freed while MPI may still touch it. A communicator is never freed:
//! that would wait for its members, one of which may be gone. And nothing calls MPI outside its
//! life, between [`begin`] and [`end`].
#![allow(unsafe_code)]

mod request;

pub(crate) use request::{Receiving, Request, Sending};

use std::ffi::c_char;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use mpi::ffi;
use mpi::traits::AsRaw;
use request::test;

use crate::awake;

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

/// A communicator of the transport's own, on which errors are returned and not fatal.
#[derive(Debug)]
pub(crate) struct Comm {
    raw: ffi::MPI_Comm,
    pub rank: usize,
    pub size: usize,
}

// SAFETY: MPI was initialized for calls from several threads at once (MPI_THREAD_MULTIPLE), and the
// handle never changes.
unsafe impl Send for Comm {}
// SAFETY: as above.
unsafe impl Sync for Comm {}

impl Comm {
    /// A copy of a communicator, made by all its ranks; waits for them no longer than `limit`.
    pub fn duplicate(
        of: &impl AsRaw<Raw = ffi::MPI_Comm>,
        limit: Duration,
    ) -> Result<Self, Failure> {
        Self::duplicate_raw(of.as_raw(), limit)
    }

    fn duplicate_raw(of: ffi::MPI_Comm, limit: Duration) -> Result<Self, Failure> {
        let call = "MPI_Comm_idup";
        let _alive = alive(call)?;
        // MPI may write it for as long as the request is not done: it is freed then alone.
        let mut raw = ManuallyDrop::new(Box::new(MaybeUninit::<ffi::MPI_Comm>::uninit()));
        let mut request = MaybeUninit::uninit();
        // SAFETY: both places are live; `raw` is on the heap, and is freed below only when MPI is
        // done with it.
        check(call, unsafe { ffi::MPI_Comm_idup(of, raw.as_mut_ptr(), request.as_mut_ptr()) })?;
        // SAFETY: written by the call that succeeded.
        let mut request = unsafe { request.assume_init() };
        let began = awake::now();
        while !test(call, &mut request)? {
            if awake::now().saturating_sub(began) > limit {
                return Err(Failure {
                    call,
                    message: format!("some rank did not come within {limit:?}"),
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // SAFETY: the request is complete, so the handle is written.
        Self::new(unsafe { *ManuallyDrop::into_inner(raw).assume_init() })
    }

    /// A copy of this one, made by all its ranks, as [`duplicate`](Self::duplicate).
    pub fn copy(&self, limit: Duration) -> Result<Self, Failure> {
        Self::duplicate_raw(self.raw, limit)
    }

    /// The communicator of some of the ranks, which must all call this: it waits for them, without
    /// a limit. MPI sends messages for it by `on`, a communicator of more ranks. No receive of
    /// this tag may run on that one, and no other call with it.
    pub fn subset(&self, members: &[usize], on: &Self, tag: u64) -> Result<Self, Failure> {
        let call = "MPI_Comm_create_group";
        let _alive = alive(call)?;
        let members = members.iter().map(|&rank| rank as i32).collect::<Vec<_>>();
        let mut own = MaybeUninit::uninit();
        let mut all = MaybeUninit::uninit();
        let mut some = MaybeUninit::uninit();
        let mut raw = MaybeUninit::uninit();
        let mut ranks = vec![0; members.len()];
        // SAFETY: every place is live for its call, each handle is read only after the call that
        // wrote it succeeded, and pointers to ranks go with their number.
        unsafe {
            check("MPI_Comm_group", ffi::MPI_Comm_group(self.raw, own.as_mut_ptr()))?;
            check("MPI_Comm_group", ffi::MPI_Comm_group(on.raw, all.as_mut_ptr()))?;
            let (own, all, count) = (own.assume_init(), all.assume_init(), members.len() as i32);
            // MPICH 4.0 crashes where the group is not one of the communicator's own.
            check(
                "MPI_Group_translate_ranks",
                ffi::MPI_Group_translate_ranks(
                    own,
                    count,
                    members.as_ptr(),
                    all,
                    ranks.as_mut_ptr(),
                ),
            )?;
            check(
                "MPI_Group_incl",
                ffi::MPI_Group_incl(all, count, ranks.as_ptr(), some.as_mut_ptr()),
            )?;
            check(
                call,
                ffi::MPI_Comm_create_group(
                    on.raw,
                    some.assume_init(),
                    tag as i32,
                    raw.as_mut_ptr(),
                ),
            )?;
            for group in [some.assume_init(), all, own] {
                ffi::MPI_Group_free(&mut { group });
            }
            Self::new(raw.assume_init())
        }
    }

    fn new(raw: ffi::MPI_Comm) -> Result<Self, Failure> {
        let mut rank = 0;
        let mut size = 0;
        // SAFETY: `raw` is a communicator that MPI has just made; the places are live.
        unsafe {
            check(
                "MPI_Comm_set_errhandler",
                ffi::MPI_Comm_set_errhandler(raw, ffi::RSMPI_ERRORS_RETURN),
            )?;
            check("MPI_Comm_rank", ffi::MPI_Comm_rank(raw, &mut rank))?;
            check("MPI_Comm_size", ffi::MPI_Comm_size(raw, &mut size))?;
        }
        Ok(Self { raw, rank: rank as usize, size: size as usize })
    }

    /// Begins a barrier; [`Request::is_done`] says when all ranks have come.
    pub fn barrier(&self) -> Result<Request, Failure> {
        let call = "MPI_Ibarrier";
        let _alive = alive(call)?;
        let mut request = MaybeUninit::uninit();
        // SAFETY: the place is live.
        check(call, unsafe { ffi::MPI_Ibarrier(self.raw, request.as_mut_ptr()) })?;
        // SAFETY: written by the call that succeeded.
        Ok(Request::new(unsafe { request.assume_init() }))
    }

    /// Begins to send a message.
    pub fn send(&self, to: usize, tag: i32, bytes: Arc<[u8]>) -> Result<Sending, Failure> {
        let call = "MPI_Isend";
        let _alive = alive(call)?;
        let too_long = |_| Failure {
            call,
            message: format!("{} bytes are more than a message holds", bytes.len()),
        };
        let len = i32::try_from(bytes.len()).map_err(too_long)?;
        let mut request = MaybeUninit::uninit();
        // SAFETY: `bytes` is kept by the returned value until MPI is done with it; nobody can write
        // it.
        let code = unsafe {
            let datatype = ffi::RSMPI_UINT8_T;
            ffi::MPI_Isend(
                bytes.as_ptr().cast(),
                len,
                datatype,
                to as i32,
                tag,
                self.raw,
                request.as_mut_ptr(),
            )
        };
        check(call, code)?;
        // SAFETY: written by the call that succeeded.
        Ok(Sending::new(Request::new(unsafe { request.assume_init() }), bytes))
    }

    /// A message that has arrived or begun to, of any rank and of this tag or any, if there is one:
    /// who sent it, its tag, and the rest of its way.
    pub fn receive(&self, tag: Option<i32>) -> Result<Option<(usize, i32, Receiving)>, Failure> {
        let call = "MPI_Improbe";
        let _alive = alive(call)?;
        let mut found = 0;
        let mut len = 0;
        let mut message = MaybeUninit::uninit();
        let mut status = MaybeUninit::<ffi::MPI_Status>::uninit();
        // SAFETY: the places are live.
        let code = unsafe {
            let source = ffi::RSMPI_ANY_SOURCE;
            let tag = tag.unwrap_or(ffi::RSMPI_ANY_TAG);
            ffi::MPI_Improbe(
                source,
                tag,
                self.raw,
                &mut found,
                message.as_mut_ptr(),
                status.as_mut_ptr(),
            )
        };
        check(call, code)?;
        if found == 0 {
            return Ok(None);
        }
        // SAFETY: with `found` the call has written both.
        let (mut message, status) = unsafe { (message.assume_init(), status.assume_init()) };
        // SAFETY: the status is that of the message.
        check("MPI_Get_count", unsafe {
            ffi::MPI_Get_count(&status, ffi::RSMPI_UINT8_T, &mut len)
        })?;
        let mut buffer: Arc<[u8]> =
            std::iter::repeat_n(0, usize::try_from(len).unwrap_or(0)).collect();
        // There is no other reference yet, so the slice has the length of the message.
        let target = Arc::get_mut(&mut buffer).unwrap_or_default().as_mut_ptr();
        let mut request = MaybeUninit::uninit();
        // SAFETY: the buffer has the message's length and is kept by the returned value, which
        // gives no reference to it, until MPI is done with it.
        let code = unsafe {
            let datatype = ffi::RSMPI_UINT8_T;
            ffi::MPI_Imrecv(target.cast(), len, datatype, &mut message, request.as_mut_ptr())
        };
        check("MPI_Imrecv", code)?;
        // SAFETY: written by the call that succeeded.
        let request = Request::new(unsafe { request.assume_init() });
        let receiving = Receiving::new(request, buffer);
        Ok(Some((status.MPI_SOURCE as usize, status.MPI_TAG, receiving)))
    }
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
