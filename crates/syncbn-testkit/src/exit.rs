//! Devices that a test never drops.
//!
//! A device that is dropped waits for what was submitted. One in a `static` is not dropped, and a
//! software driver that still computes when its process ends crashes: its threads run on while the
//! driver is unloaded.
#![allow(unsafe_code)]

use std::sync::{Mutex, PoisonError};

use syncbn::Device;

static DEVICES: Mutex<Vec<Device>> = Mutex::new(Vec::new());

unsafe extern "C" {
    /// Of the C standard library: what is registered last runs first.
    fn atexit(function: extern "C" fn()) -> std::ffi::c_int;
}

/// A device that may be kept in a `static`: the process waits for its work before it ends.
///
/// # Panics
/// Where the process can wait for no more.
pub fn wait_at_exit(device: Device) -> Device {
    DEVICES.lock().unwrap_or_else(PoisonError::into_inner).push(device.clone());
    // Once for each device, so that it runs before what the driver registered when it was loaded.
    // SAFETY: `wait` is a function, which may be called at any time, and does not unwind.
    assert_eq!(unsafe { atexit(wait) }, 0, "no room to wait for a device at exit");
    device
}

/// Waits for all devices, on a thread of its own: values of the thread that exits may be gone, and
/// wgpu has some.
extern "C" fn wait() {
    let wait = || {
        for device in DEVICES.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let polled =
                device.wgpu().map(|(gpu, _)| gpu.poll(wgpu::PollType::wait_indefinitely()));
            // A lost device has nothing to wait for, and the host is done.
            drop(polled);
        }
    };
    // Without a thread nothing waits, as if the device had not been given.
    drop(std::thread::Builder::new().spawn(wait).map(std::thread::JoinHandle::join));
}
