//! Requests, which are asynchronous operations of MPI. A request's value owns the memory of the
//! message that MPI sends or receives.

use std::mem;
use std::sync::Arc;

use mpi::ffi;

use super::{Failure, alive, check};

/// An asynchronous operation of MPI.
#[derive(Debug)]
pub(crate) struct Request {
    raw: ffi::MPI_Request,
    done: bool,
    failed: bool,
}

// SAFETY: as for [`Comm`](super::Comm); a request is tested by one thread at a time, because that
// takes `&mut`.
unsafe impl Send for Request {}

impl Request {
    pub fn new(raw: ffi::MPI_Request) -> Self {
        Self { raw, done: false, failed: false }
    }

    /// Whether it is done. After a failure it counts as under way for ever: MPI may have made it a
    /// null request, which would be done.
    pub fn is_done(&mut self) -> Result<bool, Failure> {
        if !self.done && !self.failed {
            let _alive = alive("MPI_Test")?;
            let tested = test("MPI_Test", &mut self.raw);
            self.failed = tested.is_err();
            self.done = tested?;
        }
        Ok(self.done)
    }
}

/// Whether a request is complete; only called while MPI runs.
pub(super) fn test(call: &'static str, request: &mut ffi::MPI_Request) -> Result<bool, Failure> {
    let mut done = 0;
    // SAFETY: the request is live until it is done, when MPI sets it to a null request, which may
    // be tested again.
    check(call, unsafe { ffi::MPI_Test(request, &mut done, ffi::RSMPI_STATUS_IGNORE) })?;
    Ok(done != 0)
}

/// A message on its way out.
#[derive(Debug)]
pub(crate) struct Sending {
    request: Request,
    bytes: Option<Arc<[u8]>>,
}

impl Sending {
    /// `bytes` are those that the request sends.
    pub fn new(request: Request, bytes: Arc<[u8]>) -> Self {
        Self { request, bytes: Some(bytes) }
    }

    /// Whether MPI is done with it.
    pub fn is_done(&mut self) -> Result<bool, Failure> {
        self.request.is_done()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.request.done {
            mem::forget(self.bytes.take());
        }
    }
}

/// A message on its way in.
#[derive(Debug)]
pub(crate) struct Receiving {
    request: Request,
    buffer: Arc<[u8]>,
}

impl Receiving {
    /// `buffer` is what the request writes, and there is no other reference to it.
    pub fn new(request: Request, buffer: Arc<[u8]>) -> Self {
        Self { request, buffer }
    }

    /// The message, once, when it is there.
    pub fn take(&mut self) -> Result<Option<Arc<[u8]>>, Failure> {
        Ok(if self.request.is_done()? { Some(mem::take(&mut self.buffer)) } else { None })
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if !self.request.done {
            mem::forget(mem::take(&mut self.buffer));
        }
    }
}
