//! A problem on devices: its layer, its tensors, and both calls with their backward.

use pollster::block_on;
use syncbn::{DType, Device, Error, Gradients, Layout, SyncBatchNorm, Tensor};

use super::problem::{Pass, Problem, Uses};
use super::tensors::Tensors;
use crate::batch::{Batch, bits, read, upload};
use crate::storage::{Layouts, Types, read_as, upload_as, zeros_as};

/// A rank's device, storage types and layouts.
struct Place<'a> {
    rank: usize,
    on: &'a Device,
    types: &'a Types,
    layouts: &'a Layouts,
}

/// Whether neighbours in memory go four by four: of one channel, of four of them, or, with channels
/// first, of two that meet among them.
fn has_quads(dims: &[usize], layout: Layout) -> bool {
    let elements: usize = dims.iter().product();
    let channels = dims.get(1).copied().unwrap_or(1).max(1);
    let positions: usize = dims.iter().skip(2).product();
    // One position, or one channel, lies alike in both layouts.
    if positions == 1 || (layout == Layout::ChannelsLast && channels > 1) {
        return channels.is_multiple_of(4);
    }
    positions.is_multiple_of(4) || (positions >= 4 && elements.is_multiple_of(4))
}

impl Problem {
    /// The layer on these devices, one per rank.
    pub fn layer(&self, devices: Vec<Device>) -> SyncBatchNorm {
        let mut layer = SyncBatchNorm::new(self.config.clone(), devices).expect("a valid layer");
        layer.set_parameters(self.weight(), self.bias()).expect("parameters of the right length");
        layer.set_running_stats(self.running.clone()).expect("statistics of the right length");
        layer
    }

    /// Whether forward keeps a mask: a GPU keeps none of a 16-bit input with an f32 output that it
    /// walks value by value, nor do then the others.
    fn keeps_mask(&self, devices: &[Device], layouts: &[Layouts]) -> bool {
        let can = |place: Place<'_>| {
            let Types { x, other } = *place.types;
            place.on.is_host()
                || x == DType::F32
                || other != DType::F32
                || has_quads(&self.x[place.rank].dims, place.layouts.x)
        };
        let asked =
            self.config.activation_mask && self.config.residual && self.epilogue().has_two_slopes();
        asked && self.places(devices, layouts).into_iter().all(can)
    }

    /// The tensors of a call, in f32 and channels first.
    pub fn tensors(&self, layer: &SyncBatchNorm) -> Tensors {
        let residuals = self.residuals.as_deref().map(|batches| upload(layer, batches));
        Tensors { x: upload(layer, &self.x), residuals, g: upload(layer, &self.g) }
    }

    /// The places of ranks, one per device; ranks take layouts in turn.
    fn places<'a>(&'a self, devices: &'a [Device], layouts: &'a [Layouts]) -> Vec<Place<'a>> {
        let place = |(rank, on): (usize, &'a Device)| Place {
            rank,
            on,
            types: &self.types[rank],
            layouts: &layouts[rank % layouts.len()],
        };
        devices.iter().enumerate().map(place).collect()
    }

    /// The tensors of a call on these devices, in its storage types; ranks take layouts in turn.
    pub fn tensors_as(&self, devices: &[Device], layouts: &[Layouts]) -> Tensors {
        let places = self.places(devices, layouts);
        let as_x = |batches: &[Batch]| -> Vec<Tensor> {
            let upload = |place: &Place<'_>| {
                upload_as(place.on, &batches[place.rank], place.types.x, place.layouts.x)
            };
            places.iter().map(upload).collect()
        };
        let as_g = |place: &Place<'_>| {
            upload_as(place.on, &self.g[place.rank], place.types.other, place.layouts.g)
        };
        Tensors {
            x: as_x(&self.x),
            residuals: self.residuals.as_deref().map(as_x),
            g: places.iter().map(as_g).collect(),
        }
    }

    /// Evaluation, then training, with the same tensors; ranks take the layouts in turn.
    pub fn run(
        &self,
        devices: Vec<Device>,
        layouts: &[Layouts],
    ) -> Result<[(Uses, Pass); 2], Error> {
        let layer = self.layer(devices);
        let tensors = self.tensors_as(layer.devices(), layouts);
        let room = |place: &Place<'_>| {
            zeros_as(place.on, &self.x[place.rank], place.types.other, place.layouts.x)
        };
        let mut outputs: Vec<Tensor> =
            self.places(layer.devices(), layouts).iter().map(room).collect();
        let mut pass = |uses: Uses| {
            let request = tensors.forward().write_to(&mut outputs);
            let saved = match uses {
                Uses::Running => block_on(layer.forward_eval(request)),
                Uses::Group => block_on(layer.forward_train(request)),
            }?
            .saved;
            let y = self.read(&outputs);
            let is_kept = self.keeps_mask(layer.devices(), layouts);
            assert_eq!(
                saved.mask_bytes() > 0,
                is_kept && self.x.iter().any(|batch| !batch.values.is_empty())
            );
            let decides = self.config.residual && self.epilogue().activates();
            assert_eq!(saved.needs_residual(), decides && !is_kept);
            let needed = if saved.needs_residual() {
                tensors.backward()
            } else {
                tensors.backward_without()
            };
            let backward = block_on(layer.backward(&saved, needed))?;
            let like_x = backward.input.iter().zip(&tensors.x);
            for (gradient, x) in like_x.chain(backward.residual.iter().flatten().zip(&tensors.x)) {
                assert_eq!((gradient.dtype(), gradient.layout()), (x.dtype(), x.layout()));
            }
            Ok::<_, Error>((uses, self.pass(y, &backward)))
        };
        let passes = [pass(Uses::Running)?, pass(Uses::Group)?];
        let residuals = tensors.residuals.iter().zip(&self.residuals);
        for (tensors, batches) in
            [(&tensors.x, &self.x), (&tensors.g, &self.g)].into_iter().chain(residuals)
        {
            for (found, batch) in self.read(tensors).iter().zip(batches) {
                // A NaN is itself.
                assert_eq!(
                    bits(std::slice::from_ref(found)),
                    bits(std::slice::from_ref(&batch.values)),
                    "changed"
                );
            }
        }
        Ok(passes)
    }

    /// Results of a backward call after a forward call with output y.
    pub fn pass(&self, y: Vec<Vec<f32>>, backward: &Gradients<Vec<Tensor>>) -> Pass {
        let grad_weights = backward.weight.as_deref().map(read);
        let grad_biases = backward.bias.as_deref().map(read);
        let grad_residuals = backward.residual.as_deref().map(|gradients| self.read(gradients));
        assert_eq!(
            (grad_weights.is_some(), grad_biases.is_some()),
            (self.config.weight, self.config.bias)
        );
        assert_eq!(grad_residuals.is_some(), self.epilogue().adds_residual());
        Pass {
            y,
            grad_inputs: self.read(&backward.input),
            grad_residuals,
            grad_weights,
            grad_biases,
        }
    }

    /// Values of activations, channels first.
    pub fn read(&self, tensors: &[Tensor]) -> Vec<Vec<f32>> {
        tensors.iter().zip(&self.x).map(|(tensor, batch)| read_as(tensor, batch)).collect()
    }
}
