//! The end of a process with devices that were never dropped.
//!
//! A device that is dropped waits for its submissions. A device in a `static` is never dropped, so
//! threads of a software driver may run on while the driver is unloaded: lavapipe crashes then,
//! after the last test. Even after a fence has signalled, they have some instructions left. So such
//! a process ends without unloading anything.
#![allow(unsafe_code)]

use syncbn::Device;

/// A device that may be kept in a `static`: on Linux with glibc the process ends by `_exit` from
/// then on, and so runs no function that was registered for its exit before, such as the one that
/// writes what instrumentation has counted. Functions that a driver registers later still run.
///
/// # Panics
/// Where no more functions can be registered that run at exit.
pub fn kept(device: Device) -> Device {
    // Once for each device, so that it runs before what its driver registered when it was loaded.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    linux::end_at_once();
    device
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod linux {
    use std::ffi::{c_int, c_void};
    use std::ptr::null_mut;

    // Of the C standard library.
    unsafe extern "C" {
        /// The function registered last runs first. Its first argument is the status.
        fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
        fn _exit(status: c_int) -> !;
    }

    pub fn end_at_once() {
        // SAFETY: `end` may be called with any arguments at any time.
        assert_eq!(unsafe { on_exit(end, null_mut()) }, 0, "no room for a function at exit");
    }

    /// Rust has written its output by now.
    extern "C" fn end(status: c_int, _: *mut c_void) {
        // SAFETY: it ends the process, with the status that it was to have.
        unsafe { _exit(status) }
    }
}
