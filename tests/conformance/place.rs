//! Owns where cases are run: on virtual devices of each adapter, on the host, and on both in turn.

use std::env;
use std::fmt;

use pollster::block_on;
use syncbn::Device;
use syncbn_testkit::kept;

use crate::message::chain;

/// The devices that stand for the ranks of a case, and what to call them.
pub struct Place {
    pub name: String,
    pub devices: Vec<Device>,
    /// Cases with fewer ranks say nothing new in this place, and are left out.
    pub smallest_world: usize,
    /// How process groups are made here.
    pub form: Form,
    /// Whether layers are `reproducible`: y is held to [`EXACT_BOUND`] then.
    pub reproducible: bool,
}

/// Ulp of the channel's largest |y| that y may be off where sums are of integers.
///
/// It is for the pass that normalizes, v = (x − pivot)·scale + shift with scale =
/// weight·inv_std. Let M be the largest |y|; its ulp is above 2⁻²⁴·M. Four roundings are relative
/// to v: those of x − pivot, inv_std, scale and the product. Each is at most 2⁻²⁴·|v|, less than an
/// ulp. The sum has half an ulp, and so has shift where |shift| is at most M. That is 5 ulp in the
/// worst case. The sums add at most h/(32·σ) of an ulp, where half of the range h is up to 32
/// deviations σ; beyond, what rounding took is summed too.
///
/// 2 ulp cannot be had with one f32 for the scale and a product that is rounded. Random channels
/// have up to 2.8 ulp so, 2.4 with a scale that is rounded once, and 2.0 if the product is fused
/// with the sum, too. Kernels of ordinary layers normalize the same way: their worst cases are the
/// same ones, C1000 and `uneven`, with 3.1 and 2.7 ulp.
pub const EXACT_BOUND: f64 = 3.0;

impl Place {
    /// Whether all of it is on one adapter.
    pub fn is_one_gpu(&self) -> bool {
        self.devices.iter().all(|device| !device.is_host())
    }
}

/// The two ways to make process groups. The places take turns with them, so that every case sees
/// both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Every rank gives the whole partition.
    Partition,
    /// Every rank gives the ranks of its own group.
    Subgroup,
}

impl Form {
    fn of_place(index: usize) -> Self {
        if index.is_multiple_of(2) { Self::Partition } else { Self::Subgroup }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Partition { "partition" } else { "subgroup" })
    }
}

/// The host as `world` ranks.
pub fn host(world: usize, form: Form) -> Place {
    let name = "host".to_owned();
    let devices = vec![Device::host(); world];
    Place { name, devices, smallest_world: 1, form, reproducible: false }
}

/// The same with sums of integers.
fn reproducible_host(world: usize, form: Form) -> Place {
    Place { name: "host, reproducible".to_owned(), reproducible: true, ..host(world, form) }
}

/// Where cases are run.
pub struct Places {
    /// What there is to say of the adapters.
    pub adapters: Vec<String>,
    pub all: Vec<Place>,
}

impl Places {
    /// Every adapter with as many virtual devices as the largest case has ranks, the host as often,
    /// and the two in turn; or the host alone where that is asked for.
    ///
    /// # Errors
    /// When there is no adapter: a run that leaves the GPU path out must not look like one that
    /// passed.
    pub fn open(world: usize) -> Result<Self, String> {
        let wanted = env::var("SYNCBN_TEST_ADAPTER").unwrap_or_default();
        if wanted == "host" {
            let adapters = vec!["none, as SYNCBN_TEST_ADAPTER asks for the host alone".to_owned()];
            let all =
                vec![host(world, Form::of_place(0)), reproducible_host(world, Form::of_place(1))];
            return Ok(Self { adapters, all });
        }
        let mut adapters = block_on(Device::adapters());
        let names: Vec<String> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
        adapters.retain(|adapter| adapter.get_info().name.contains(&wanted));
        if adapters.is_empty() {
            let hint = "install a Vulkan driver (mesa-vulkan-drivers has a software one)";
            return Err(format!(
                "no adapter whose name contains {wanted:?} among {names:?}: {hint}"
            ));
        }
        let mut lines = Vec::new();
        let mut places = Vec::<Place>::new();
        for adapter in &adapters {
            let open = |_| {
                block_on(Device::from_adapter(adapter)).map(kept).map_err(|error| chain(&error))
            };
            let devices = (0..world).map(open).collect::<Result<Vec<Device>, String>>();
            let info = adapter.get_info();
            let devices = devices.map_err(|error| format!("{}: {error}", info.name))?;
            lines.push(format!(
                "{}, {:?}, {}, as {world} virtual devices",
                info.name, info.backend, info.driver_info
            ));
            let alike = places.iter().filter(|place| place.name.starts_with(&info.name)).count();
            let name = if alike == 0 { info.name } else { format!("{} #{}", info.name, alike + 1) };
            places.push(Place {
                name,
                devices,
                smallest_world: 1,
                form: Form::of_place(places.len()),
                reproducible: false,
            });
        }
        let host = host(world, Form::of_place(places.len()));
        if let Some(first) = places.first() {
            let name = first.name.clone();
            let devices = first.devices.clone();
            let mixed = first.devices.iter().zip(&host.devices).enumerate();
            let mixed = mixed
                .map(|(rank, (gpu, host))| if rank % 2 == 0 { gpu.clone() } else { host.clone() })
                .collect();
            let form = Form::of_place(places.len() + 1);
            places.push(host);
            places.push(Place {
                name: "both in turn".to_owned(),
                devices: mixed,
                smallest_world: 2,
                form,
                reproducible: false,
            });
            places.push(reproducible_host(world, Form::of_place(places.len())));
            places.push(Place {
                name: format!("{name}, reproducible"),
                devices,
                smallest_world: 1,
                form: Form::of_place(places.len()),
                reproducible: true,
            });
        }
        Ok(Self { adapters: lines, all: places })
    }
}
