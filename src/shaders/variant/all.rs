//! Every variant that a plan can ask for, for tests and for other compilers.

use super::Variant;
use crate::dtype::DType;
use crate::shaders::kernel::{
    Active, DoubleGradient, Elements, GradInput, Kernel, MaskOrder, Normalize, RankSums,
    RunningForm, Upstream,
};
use crate::shaders::storage::Storage;

impl Variant {
    /// Every variant that a plan can ask for.
    pub fn all() -> Vec<Self> {
        let kernels = [
            statistics(),
            normalizations(),
            gradient_sums(),
            gradients(),
            double_gradients(),
            integers(),
        ];
        let combining = [Kernel::CombineStats, Kernel::CombineGradSums, Kernel::CombineIntegers];
        let of_channels = [
            Kernel::CenterRunning(RunningForm::Entries),
            Kernel::CenterRunning(RunningForm::Vectors),
            Kernel::FindGrids,
            Kernel::FindWide,
            Kernel::FinalizeIntegers(RunningForm::Entries),
            Kernel::FinalizeIntegers(RunningForm::Vectors),
            Kernel::FindGradGrids,
            Kernel::FinalizeGradIntegers,
            Kernel::GatherCotangents,
            Kernel::FinalizeDouble,
            Kernel::Accumulate,
        ];
        let merging = [RankSums::Ranks, RankSums::Tiles].into_iter().flat_map(|sums| {
            [
                Kernel::FinalizeStats { running: RunningForm::Entries, sums },
                Kernel::FinalizeStats { running: RunningForm::Vectors, sums },
                Kernel::FinalizeGrad(sums),
            ]
        });
        let kernels = kernels.into_iter().flatten().chain(combining).chain(of_channels);
        let kernels = kernels.chain(merging);
        kernels
            .flat_map(|kernel| [false, true].map(|shared_buffer| Self { kernel, shared_buffer }))
            .collect()
    }
}

const ELEMENTS: [Elements; 3] = [Elements::Single, Elements::Quads, Elements::FourChannels];

/// Those of kernels that write in the order of addresses.
const FLAT: [Elements; 2] =
    [Elements::Flat { straddles: false }, Elements::Flat { straddles: true }];

/// Whether lanes merge within a subgroup, as far as there is a choice.
fn merging(elements: Elements) -> &'static [bool] {
    if elements == Elements::FourChannels { &[false] } else { &[false, true] }
}

fn statistics() -> Vec<Kernel> {
    let mut kernels = Vec::new();
    for x in Storage::ALL {
        for elements in ELEMENTS.into_iter().chain([Elements::Covering]) {
            for &subgroups in merging(elements) {
                let kernel = Kernel::PartialStats { x, elements, subgroups, finishes: None };
                let forms = [RunningForm::Entries, RunningForm::Vectors];
                kernels.push(kernel);
                let finishing: Vec<Kernel> =
                    forms.into_iter().filter_map(|form| kernel.finishing(form)).collect();
                let walks_alike =
                    |apply: &Kernel| (apply.x(), apply.elements()) == (Some(x), elements);
                let applies = normalizations().into_iter().filter(walks_alike);
                kernels.extend(applies.flat_map(|apply| {
                    finishing.clone().into_iter().filter_map(move |kernel| kernel.fused(apply))
                }));
                kernels.extend(finishing);
            }
        }
    }
    kernels
}

fn normalizations() -> Vec<Kernel> {
    let mut kernels = Vec::new();
    for x in Storage::ALL {
        for y in [DType::F32, DType::F16, DType::BF16] {
            if !Storage::packed(x.dtype()).goes_with(Storage::packed(y)) {
                continue;
            }
            for elements in ELEMENTS.into_iter().chain(FLAT) {
                // Backward's kernels write as x is stored, and read the mask in the order in which
                // they write.
                let order = match (elements, x.dtype(), y) {
                    (Elements::Flat { .. }, ..) => Some(MaskOrder::ByAddress),
                    (Elements::Quads | Elements::FourChannels, ..) => Some(MaskOrder::ByInvocation),
                    (_, DType::F32, DType::F32) => Some(MaskOrder::ByInvocation),
                    (_, _, DType::F32) => None,
                    _ => Some(MaskOrder::ByAddress),
                };
                let without =
                    [(false, false, None), (true, false, None), (true, true, None)].into_iter();
                let masked = order.map(|order| (true, false, Some(order)));
                for (activation, curved, mask) in without.chain(masked) {
                    for residual in [false, true] {
                        let normalize = Normalize {
                            x,
                            y,
                            elements,
                            residual,
                            activation,
                            curved,
                            mask,
                            in_place: false,
                        };
                        kernels.push(Kernel::Normalize(normalize));
                        // In place, nothing is differentiated, and no mask is kept.
                        if x.dtype() == y && mask.is_none() {
                            kernels
                                .push(Kernel::Normalize(Normalize { in_place: true, ..normalize }));
                        }
                    }
                }
            }
        }
    }
    kernels
}

/// What backward can read.
fn upstreams() -> Vec<Upstream> {
    let mut upstreams = Vec::new();
    for x in Storage::ALL {
        for grad_output in Storage::ALL {
            if !x.goes_with(grad_output) {
                continue;
            }
            for elements in ELEMENTS {
                // By address where forward wrote in the order of addresses: what was of one channel
                // or of two, and words of 16 bits.
                let orders: &[MaskOrder] = match (elements, x) {
                    (Elements::FourChannels, _) => &[MaskOrder::ByInvocation],
                    (Elements::Single, Storage::F16 | Storage::BF16 | Storage::NativeF16) => {
                        &[MaskOrder::ByAddress]
                    }
                    _ => &[MaskOrder::ByInvocation, MaskOrder::ByAddress],
                };
                let recomputed = [[false, false], [false, true], [true, false], [true, true]]
                    .map(|[residual, curved]| Active::Recomputed { residual, curved });
                let masked = orders.iter().map(|&order| Active::Masked(order));
                for active in [Active::Everywhere].into_iter().chain(masked).chain(recomputed) {
                    let upstream = Upstream { x, grad_output, elements, strided: false, active };
                    upstreams.push(upstream);
                    if elements != Elements::Single {
                        upstreams.push(Upstream { strided: true, ..upstream });
                    }
                }
            }
        }
    }
    upstreams
}

fn gradient_sums() -> Vec<Kernel> {
    let mut kernels = Vec::new();
    for upstream in upstreams().into_iter().chain(addressed_as(&[Elements::Covering])) {
        for &subgroups in merging(upstream.elements) {
            let kernel = Kernel::PartialGradSums { upstream, subgroups, finishes: None };
            kernels.push(kernel);
            let finishing = kernel.finishing(RunningForm::Entries);
            kernels.extend(finishing);
            let apply = GradInput { batch_statistics: true, upstream, ..GradInput::default() };
            kernels.extend(finishing.and_then(|kernel| kernel.fused(Kernel::GradInput(apply))));
        }
    }
    kernels
}

/// Of sums of integers. f16 of gradients is read by integer arithmetic.
fn integers() -> Vec<Kernel> {
    let of_x = Storage::ALL
        .into_iter()
        .flat_map(|x| ELEMENTS.map(|elements| Kernel::PartialIntegers(x, elements)));
    let is_portable = |up: &Upstream| ![up.x, up.grad_output].contains(&Storage::NativeF16);
    let upstreams = upstreams().into_iter().filter(is_portable);
    of_x.chain(upstreams.map(Kernel::PartialGradIntegers)).collect()
}

/// Of double backward, where all is stored and lies as x.
fn double_gradients() -> Vec<Kernel> {
    let is_alike = |upstream: &Upstream| {
        upstream.x == upstream.grad_output
            && upstream.x != Storage::NativeF16
            && !upstream.strided
            && !matches!(upstream.active, Active::Recomputed { curved: true, .. })
    };
    let of_upstream = |upstream| {
        [
            Kernel::PartialDoubleSums(upstream),
            Kernel::DoubleInput { upstream, of: DoubleGradient::Input },
            Kernel::DoubleInput { upstream, of: DoubleGradient::GradOutput },
        ]
    };
    upstreams().into_iter().filter(is_alike).flat_map(of_upstream).collect()
}

/// What kernels read that go by quads which may straddle channels, instead of quads of one: the same,
/// but for another layout of grad_output and the order of a mask.
fn addressed_as(elements: &[Elements]) -> Vec<Upstream> {
    let is_addressed = |upstream: &Upstream| {
        let by_tiles = upstream.active == Active::Masked(MaskOrder::ByInvocation);
        upstream.elements == Elements::Quads && !upstream.strided && !by_tiles
    };
    let like = upstreams().into_iter().filter(is_addressed);
    let each = |upstream| elements.iter().map(move |&elements| Upstream { elements, ..upstream });
    like.flat_map(each).collect()
}

fn gradients() -> Vec<Kernel> {
    let mut kernels = Vec::new();
    for upstream in upstreams().into_iter().chain(addressed_as(&FLAT)) {
        for batch_statistics in [false, true] {
            for grad_residual in [false, true] {
                let gradient =
                    GradInput { upstream, batch_statistics, grad_residual, in_place: false };
                kernels.push(Kernel::GradInput(gradient));
                // The gradient is stored as x, and lies as x does.
                if upstream.grad_output == upstream.x && !upstream.strided {
                    kernels.push(Kernel::GradInput(GradInput { in_place: true, ..gradient }));
                }
            }
        }
    }
    kernels
}
