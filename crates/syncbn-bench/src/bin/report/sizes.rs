//! Owns the shapes that are timed, and their size by the speed of the machine.

use std::error::Error;

use syncbn_bench::copy::Copier;
use syncbn_bench::devices::Machine;
use syncbn_bench::timing::Samples;
use syncbn_bench::workloads::Workload;

/// Shapes of one size, in f32: early in a ResNet, read by quads; late in one, by single values; a
/// matrix.
pub type Shapes = [Workload; 3];

/// From small to large: about 3, 6, 26 and 100 MB a tensor.
static LADDER: [Shapes; 4] = [
    [conv(&[1, 256, 56, 56]), late(&[8, 2048, 7, 7]), matrix(&[768, 1024])],
    [conv(&[2, 256, 56, 56]), late(&[16, 2048, 7, 7]), matrix(&[1536, 1024])],
    [conv(&[8, 256, 56, 56]), late(&[64, 2048, 7, 7]), matrix(&[6144, 1024])],
    [conv(&[32, 256, 56, 56]), late(&[256, 2048, 7, 7]), matrix(&[24_576, 1024])],
];
/// A copy faster than this, in GB/s, selects the next larger shapes. Then a row takes two seconds
/// and a copy a millisecond.
const STEPS: [f64; 3] = [12.0, 25.0, 120.0];
/// Bytes of the tensor that is copied to find out.
const PROBE_BYTES: u64 = 16 << 20;
/// Repeats of the copy.
const REPEATS: usize = 5;

const fn conv(dims: &'static [usize]) -> Workload {
    Workload { name: "conv 256×56×56", group: "report", dims }
}

const fn late(dims: &'static [usize]) -> Workload {
    Workload { name: "conv 2048×7×7", group: "report", dims }
}

const fn matrix(dims: &'static [usize]) -> Workload {
    Workload { name: "matrix", group: "report", dims }
}

/// The smallest shapes.
pub fn smallest() -> &'static Shapes {
    &LADDER[0]
}

/// Shapes that suit the speed of a copy on this machine.
pub fn measured(machine: &Machine) -> Result<&'static Shapes, Box<dyn Error>> {
    Ok(for_speed(copy_gb_per_s(machine)?))
}

fn for_speed(gb_per_s: f64) -> &'static Shapes {
    &LADDER[STEPS.iter().filter(|&&step| gb_per_s > step).count()]
}

/// Bytes read and written by a copy in a second.
fn copy_gb_per_s(machine: &Machine) -> Result<f64, Box<dyn Error>> {
    let mut copier = Copier::new(machine, &[PROBE_BYTES], 2)?;
    copier.prepare(2.0);
    let run = |_| {
        machine.awake.wake()?;
        copier.run()
    };
    let times = (0..REPEATS).map(run).collect::<Result<Vec<_>, _>>()?;
    let milliseconds =
        Samples::of(times.iter().map(|times| times.device.unwrap_or(times.wall))).median;
    Ok(2.0 * PROBE_BYTES as f64 / milliseconds / 1e6)
}

#[cfg(test)]
mod tests {
    use syncbn::DType;

    use super::*;

    #[test]
    fn a_faster_machine_gets_larger_shapes() {
        let bytes = |gb_per_s| for_speed(gb_per_s)[0].bytes(DType::F32);
        let sizes = [1.0, 20.0, 100.0, 3000.0].map(bytes);
        assert!(sizes.is_sorted() && sizes[0] < sizes[3], "{sizes:?}");
    }

    #[test]
    fn shapes_of_one_size_have_about_as_many_bytes() {
        for shapes in &LADDER {
            let bytes = shapes.each_ref().map(|shape| shape.bytes(DType::F32) as f64);
            assert!(bytes.iter().all(|other| (other / bytes[0] - 1.0).abs() < 0.1), "{bytes:?}");
        }
    }
}
