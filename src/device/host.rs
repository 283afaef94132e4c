//! Devices that are the host, and the threads that they compute on.

use std::sync::Arc;

use super::{DEFAULT_DEADLINE, Device, Kind};
use crate::host::Threads;

impl Device {
    /// The host (CPU). The layer computes the same there, without a driver. The host may stand
    /// beside GPUs in one group.
    ///
    /// It computes on the caller's thread and on the threads of rayon's global pool. Their number
    /// is `RAYON_NUM_THREADS`, or else the number of the machine's hardware threads. The bits of
    /// results are the same for any number. Small tensors are computed on the caller's thread
    /// alone. If the caller is on a thread of another rayon pool, that pool helps.
    ///
    /// A call never waits for a thread of the pool that is in another task. The caller's thread
    /// does the work that no other thread takes, and runs no other tasks of the pool meanwhile. So
    /// the ranks of a group may be tasks of the pool that they compute on. They need one thread
    /// each, because a rank that waits for its peers keeps its thread.
    pub fn host() -> Self {
        Self { kind: Kind::Host(Threads::default()), deadline: DEFAULT_DEADLINE }
    }

    /// The host, on the threads of the application's pool instead of rayon's global one. With a
    /// pool of one thread, the caller computes everything. Several devices may share a pool.
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
