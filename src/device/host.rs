//! Devices that are the host, on which threads they compute.

use std::sync::Arc;

use super::{DEFAULT_DEADLINE, Device, Kind};
use crate::host::Threads;

impl Device {
    /// The host: the same layer computed on the CPU, with no driver needed. It may stand beside
    /// GPUs in one group.
    ///
    /// It computes on the caller's thread and on those of rayon's global pool, as many as
    /// `RAYON_NUM_THREADS` or the machine says; results are the same bits for any number. Small
    /// tensors are computed on the caller's thread alone. A caller on a thread of another rayon
    /// pool is helped by that pool.
    ///
    /// A call never waits for a thread of the pool that is in another task: the caller's thread
    /// does what nobody helps with. Nor does the caller's thread run other tasks of the pool
    /// meanwhile. So the ranks of a group may be tasks of the pool that they compute on, with a
    /// thread for each, since a rank that waits for its peers keeps its thread.
    pub fn host() -> Self {
        Self { kind: Kind::Host(Threads::default()), deadline: DEFAULT_DEADLINE }
    }

    /// The host, on the threads of a pool of the application's instead of rayon's global one. A
    /// pool of one thread leaves all to the caller's. Several devices may share a pool.
    ///
    /// ```
    /// use std::sync::Arc;
    /// let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    /// let device = syncbn::Device::host_with_pool(Arc::new(pool));
    /// assert!(device.is_host());
    /// # Ok::<(), rayon::ThreadPoolBuildError>(())
    /// ```
    pub fn host_with_pool(pool: Arc<rayon::ThreadPool>) -> Self {
        Self { kind: Kind::Host(Threads::of(pool)), deadline: DEFAULT_DEADLINE }
    }
}
