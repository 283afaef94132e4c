//! A communicator of the transport: making it, and beginning messages and barriers on it.

use std::mem::{ManuallyDrop, MaybeUninit};
use std::sync::Arc;
use std::time::Duration;

use mpi::ffi;
use mpi::traits::AsRaw;

use super::request::{Receiving, Request, Sending, test};
use super::{Failure, alive, check};
use crate::awake;

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
