//! Ranks: a Burn device, its wgpu handles, and the group in which its layers synchronize.
//!
//! Burn's device gives no way back to the wgpu device below it, and a module is made from a device
//! alone. So every rank is listed here, weakly: what holds it are its handle and the modules made
//! on it, and when they are gone, the rank has left its group.

use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use burn::backend::DispatchDevice;
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{DType, Device, Shape};
use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;
use syncbn::ProcessGroup;

use crate::error::Error;
use crate::layer::OfModules;
use crate::memory::lend;

/// The ranks that live.
static RANKS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// One rank of data-parallel training: a Burn device whose [`SyncBatchNorm`](crate::SyncBatchNorm)
/// layers normalize with the statistics of a whole [`ProcessGroup`].
///
/// Modules made on its device belong to it and hold it; it leaves the group when it and they are
/// dropped. A module that was made elsewhere and forked to its device does not hold it: keep the
/// rank while such a module is in use. Each rank lives on a thread of its own, as its layers wait
/// for those of the other ranks.
///
/// ```no_run
/// use syncbn_burn::{Rank, SyncBatchNormConfig};
/// use syncbn::ProcessGroup;
///
/// # fn example(adapter: wgpu::Adapter) -> Result<(), syncbn_burn::Error> {
/// // A group of one normalizes locally; `LocalGroup::ranks` gives those of several threads.
/// let rank = Rank::open(&adapter, ProcessGroup::single())?;
/// let device = rank.device().autodiff();
/// let norm = SyncBatchNormConfig::new(16).init(&device);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Rank {
    shared: Arc<Shared>,
}

/// The part of a rank that its handle and its modules share.
pub(crate) struct Shared {
    device: Device,
    cube: CubeDevice,
    pub gpu: syncbn::Device,
    pub group: ProcessGroup,
    /// Modules without a name that were made on the device.
    pub modules: AtomicUsize,
    pub layers: OfModules,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rank = self.group.rank();
        let world_size = self.group.world_size();
        f.debug_struct("Rank")
            .field("device", &self.cube)
            .field("rank", &rank)
            .field("of", &world_size)
            .finish()
    }
}

impl Rank {
    /// Opens a wgpu device on an adapter, as [`setup`] does, and gives it to Burn. Several may be
    /// opened on one adapter.
    ///
    /// # Errors
    /// [`Error::Device`] when the driver refuses or Burn does not take the device; [`Error::Layer`]
    /// when it is below the portable limits of WebGPU.
    pub fn open(adapter: &wgpu::Adapter, group: ProcessGroup) -> Result<Self, Error> {
        Self::share(setup(adapter)?, group)
    }

    /// Gives the application's wgpu device to Burn. Each setup may be given once.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn share(setup: WgpuSetup, group: ProcessGroup) -> Result<Self, Error> {
        let device = Device::wgpu_options().setup(setup.clone()).init();
        let device = device.map_err(|error| Error::Device { message: error.to_string() })?;
        Self::of_device(&device, &setup, group)
    }

    /// Uses a device that Burn has already, with the handles that
    /// `Device::wgpu_options().init_with_setup()` returned beside it.
    ///
    /// # Errors
    /// [`Error::Device`] for a device that is not one of wgpu, that is a rank already, or that has
    /// another setup; [`Error::Layer`] as [`open`](Self::open).
    pub fn of_device(
        device: &Device,
        setup: &WgpuSetup,
        group: ProcessGroup,
    ) -> Result<Self, Error> {
        let device = device.clone().without_autodiff();
        let Some(cube) = cube_device(&device) else {
            return Err(Error::Device {
                message: format!("{device:?} is not one of Burn's wgpu devices"),
            });
        };
        let gpu = syncbn::Device::from_wgpu(setup.device.clone(), setup.queue.clone())?;
        check_setup(&cube, &gpu)?;
        let mut ranks = ranks();
        ranks.retain(|rank| rank.strong_count() > 0);
        if ranks.iter().filter_map(Weak::upgrade).any(|rank| rank.cube == cube) {
            return Err(Error::Device {
                message: format!(
                    "{cube:?} is a rank already: its handle, or a module that was made on it, lives"
                ),
            });
        }
        let (modules, layers) = Default::default();
        let shared = Arc::new(Shared { device, cube, gpu, group, modules, layers });
        ranks.push(Arc::downgrade(&shared));
        Ok(Self { shared })
    }

    /// The device for Burn, without autodiff; `device().autodiff()` is for training.
    pub fn device(&self) -> Device {
        self.shared.device.clone()
    }

    /// Whether any rank of the group has a batch left, where this one says whether it has. All
    /// ranks ask at the same time, so that those without a batch go on with empty ones until all
    /// have ended: layers wait for every rank.
    ///
    /// # Errors
    /// [`Error::Layer`] with the error of the exchange.
    pub fn any_has_batch(&self, has_batch: bool) -> Result<bool, Error> {
        let mut left = [f32::from(u8::from(has_batch))];
        pollster::block_on(self.group().all_reduce_sum([&mut left[..]]))?;
        Ok(left[0] > 0.0)
    }

    /// The group in which the layers of this rank synchronize.
    pub fn group(&self) -> &ProcessGroup {
        &self.shared.group
    }
}

impl Shared {
    /// Whether this is the rank of a device.
    pub fn is_on(&self, device: &CubeDevice) -> bool {
        self.cube == *device
    }

    /// Notifies the other ranks of a failure of this one, because they may wait for it. Errors that
    /// all ranks find alike are left out.
    pub fn notify(&self, error: &Error) {
        if !matches!(error, Error::Layer(syncbn::Error::Batch(_) | syncbn::Error::Group(_))) {
            self.group.abort(&error.to_string());
        }
    }
}

/// A wgpu device on an adapter with all features that Burn can use, in the form in which Burn takes
/// it.
///
/// # Errors
/// [`Error::Device`] when the driver refuses.
pub fn setup(adapter: &wgpu::Adapter) -> Result<WgpuSetup, Error> {
    // Burn reads features and limits from the adapter, so the device needs all of them, but for
    // those that cost (mapping memory for the host) or promise nothing.
    let unwanted =
        wgpu::Features::MAPPABLE_PRIMARY_BUFFERS | wgpu::Features::all_experimental_mask();
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("syncbn-burn"),
        required_features: adapter.features() - unwanted,
        required_limits: adapter.limits(),
        ..wgpu::DeviceDescriptor::default()
    };
    let opened = pollster::block_on(adapter.request_device(&descriptor));
    let (device, queue) = opened.map_err(|error| Error::Device { message: error.to_string() })?;
    // Burn keeps an instance beside the adapter and asks nothing of it.
    let mut instance = wgpu::InstanceDescriptor::new_without_display_handle();
    instance.backends = wgpu::Backends::empty();
    let instance = wgpu::Instance::new(instance);
    let adapter = adapter.clone();
    let backend = adapter.get_info().backend;
    Ok(WgpuSetup { instance, adapter, device, queue, backend })
}

/// Refuses the setup of another device: reads memory of Burn's through it. It makes no tensor of
/// Burn's, which would settle the device's default types.
fn check_setup(cube: &CubeDevice, gpu: &syncbn::Device) -> Result<(), Error> {
    let client = cube.client();
    let handle = client.create_from_slice(&1f32.to_le_bytes());
    let shape = Shape::from([1]);
    let dtype = DType::F32;
    let probe = CubeTensor::new_contiguous(client, cube.clone(), shape, handle, dtype);
    let refused =
        |why: String| Error::Device { message: format!("the setup is not that of {cube:?}{why}") };
    let read = lend("a probe", &probe, gpu)
        .and_then(|lent| Ok(pollster::block_on(lent.tensor.to_vec_of::<f32>())?));
    match read {
        Ok(values) if values == [1.0] => Ok(()),
        Ok(_) => Err(refused(String::new())),
        Err(error) => Err(refused(format!(": {error}"))),
    }
}

/// The rank of one of Burn's devices, if it has one.
pub(crate) fn of_device(device: &Device) -> Option<Arc<Shared>> {
    of_cube_device(&cube_device(device)?)
}

/// The rank of a device as tensors name it.
pub(crate) fn of_cube_device(device: &CubeDevice) -> Option<Arc<Shared>> {
    ranks().iter().filter_map(Weak::upgrade).find(|rank| rank.is_on(device))
}

/// The wgpu device of a device.
pub(crate) fn cube_device(device: &Device) -> Option<CubeDevice> {
    match device.clone().without_autodiff().as_dispatch() {
        DispatchDevice::Cube(device @ CubeDevice::Wgpu(_)) => Some(device.clone()),
        _ => None,
    }
}

fn ranks() -> MutexGuard<'static, Vec<Weak<Shared>>> {
    RANKS.lock().unwrap_or_else(PoisonError::into_inner)
}
