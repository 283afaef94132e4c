//! The requests of a caller: shapes, lengths of padded samples, targets.

use std::sync::LazyLock;

use syncbn::config::Activation;
use syncbn::error::ArgumentError;
use syncbn::{Backward, BatchNormConfig, Device, Error, Forward, Layout, SyncBatchNorm, Tensor};

static HOST: LazyLock<Device> = LazyLock::new(Device::host);

/// Bytes that are read one by one; behind the last there are zeros.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl<'a> Bytes<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self(bytes.iter())
    }

    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn below(&mut self, end: u8) -> usize {
        usize::from(self.byte() % end)
    }

    /// One in four, so that most of a request is as it should be.
    fn rarely(&mut self) -> bool {
        self.byte() % 4 == 3
    }

    /// A length: mostly of a sample that small, sometimes far beyond.
    fn length(&mut self) -> u32 {
        match self.byte() {
            byte @ 250.. => u32::MAX - u32::from(byte - 250),
            byte => u32::from(byte % 5),
        }
    }
}

/// A tensor whose values differ in every place.
fn tensor(dims: &[usize], layout: Layout) -> Tensor {
    let values: Vec<f32> = (0..dims.iter().product()).map(|i| (1.7 * i as f32).sin()).collect();
    HOST.upload(dims, &values).expect("as many values as the dimensions say").with_layout(layout)
}

fn read(tensor: &Tensor) -> Vec<f32> {
    pollster::block_on(tensor.to_vec()).expect("a tensor of the host")
}

/// Dimensions with this number of channels: samples, and up to two spatial axes.
fn dims(bytes: &mut Bytes<'_>, channels: usize, layout: Layout) -> Vec<usize> {
    let mut dims = vec![bytes.below(4)];
    dims.extend((0..bytes.below(3)).map(|_| bytes.below(5)).collect::<Vec<_>>());
    dims.insert(if layout == Layout::ChannelsFirst { 1 } else { dims.len() }, channels);
    dims
}

fn layout(bytes: &mut Bytes<'_>) -> Layout {
    [Layout::ChannelsFirst, Layout::ChannelsLast][bytes.below(2)]
}

/// Lists of lengths are taken where they fit, and refused where they do not; what is padded is 0.
pub fn lengths(bytes: &[u8]) {
    let mut bytes = Bytes::of(bytes);
    let (ranks, channels, layout) = (1 + bytes.below(2), 1 + bytes.below(3), layout(&mut bytes));
    let shapes: Vec<_> = (0..ranks).map(|_| dims(&mut bytes, channels, layout)).collect();
    let lists = if bytes.rarely() { bytes.below(4) } else { ranks };
    let lists: Vec<Vec<u32>> = (0..lists)
        .map(|list| {
            let samples = shapes.get(list).map_or(0, |dims| dims[0]);
            let count = if bytes.rarely() { bytes.below(6) } else { samples };
            (0..count).map(|_| bytes.length()).collect()
        })
        .collect();
    let x: Vec<Tensor> = shapes.iter().map(|dims| tensor(dims, layout)).collect();
    let config = BatchNormConfig::torch(channels);
    let layer = SyncBatchNorm::new(config, vec![HOST.clone(); ranks]).expect("valid settings");
    let before = layer.running_stats();
    let found = pollster::block_on(layer.forward_train(Forward::of(&x).lengths(&lists)));
    if found.is_err() {
        assert_eq!(layer.running_stats(), before, "a call that is refused changes nothing");
    }
    // The sizes of the first spatial axis and of the others.
    let spatial = |dims: &[usize]| {
        let axes =
            if layout == Layout::ChannelsFirst { &dims[2..] } else { &dims[1..dims.len() - 1] };
        axes.split_first().map(|(first, rest)| (*first, rest.iter().product::<usize>()))
    };
    let fits = lists.len() == ranks
        && shapes.iter().zip(&lists).all(|(dims, list)| {
            list.len() == dims[0]
                && spatial(dims).is_some_and(|(time, _)| list.iter().all(|n| *n as usize <= time))
        });
    if !fits {
        let is_refused = matches!(found, Err(Error::Argument(ArgumentError::Lengths(_))));
        assert!(is_refused, "{shapes:?}, {lists:?}: {found:?}");
        return;
    }
    let count: usize = shapes
        .iter()
        .zip(&lists)
        .flat_map(|(dims, list)| {
            let (_, rest) = spatial(dims).unwrap_or_default();
            list.iter().map(move |length| *length as usize * rest)
        })
        .sum();
    let outputs = match found {
        Err(Error::Batch(_)) if count == 1 => return,
        Ok(forward) if count != 1 => forward.output,
        other => panic!("{count} value(s) of {shapes:?}, {lists:?}: {other:?}"),
    };
    for ((dims, list), y) in shapes.iter().zip(&lists).zip(&outputs) {
        let (y, (time, rest)) = (read(y), spatial(dims).unwrap_or_default());
        for (place, value) in y.iter().enumerate() {
            let sample = place / (channels * time * rest);
            let step = match layout {
                Layout::ChannelsFirst => place / rest % time,
                Layout::ChannelsLast => place / (rest * channels) % time,
            };
            let is_padded = step >= list[sample] as usize;
            assert!(
                value.is_finite() && !(is_padded && *value != 0.0),
                "{dims:?}, {list:?}: {y:?}"
            );
        }
    }
}

/// A request is refused with a typed error that changes nothing, or gives results of the right
/// dimensions. One in which nothing was changed is never refused.
pub fn requests(bytes: &[u8]) {
    let is_plain = bytes.iter().skip(5).all(|byte| *byte == 0);
    let mut bytes = Bytes::of(bytes);
    let (channels, order) = (1 + bytes.below(3), layout(&mut bytes));
    let flags = bytes.byte();
    let (samples, length) = (2 + bytes.below(3), 1 + bytes.below(4));
    let own = match order {
        Layout::ChannelsFirst => [samples, channels, length],
        Layout::ChannelsLast => [samples, length, channels],
    };
    let config = BatchNormConfig::torch(channels)
        .with_residual(flags & 1 != 0)
        .with_affine(flags & 2 == 0)
        .with_reproducible(flags & 4 != 0)
        .with_activation(if flags & 8 != 0 { Activation::Relu } else { Activation::None })
        .with_freeze_affine(flags & 16 != 0);
    let layer = SyncBatchNorm::new(config, [HOST.clone()]).expect("valid settings");
    let mut another = |wanted: &[usize]| match bytes.rarely() {
        false => tensor(wanted, order),
        true => {
            let (channels, layout) = (1 + bytes.below(3), layout(&mut bytes));
            tensor(&dims(&mut bytes, channels, layout), layout)
        }
    };
    let x = another(&own);
    let (residual, mut y, g) = (another(&own), another(&own), another(&own));
    let (mut of_x, mut of_residual) = (another(&own), another(&own));
    let (mut of_weight, mut of_bias) = (another(&[channels]), another(&[channels]));
    let how = bytes.byte();
    let adds_residual = (flags & 1 != 0) != (how & 1 != 0);
    let before = layer.running_stats();
    let mut request = Forward::of(&x);
    if adds_residual {
        request = request.residual(&residual);
    }
    if how & 2 != 0 {
        request = request.untracked();
    }
    let forward = match how & 4 {
        0 => pollster::block_on(layer.forward_train(request)).map(|forward| {
            assert_eq!(forward.output.dims(), x.dims());
            forward.saved
        }),
        _ => pollster::block_on(layer.forward_train(request.write_to(&mut y)))
            .map(|forward| forward.saved)
            .inspect(|_| assert_eq!(y.dims(), x.dims())),
    };
    let saved = match forward {
        Ok(saved) => saved,
        Err(error) => {
            assert!(!is_plain, "{error}");
            assert_eq!(layer.running_stats(), before, "{error}");
            return;
        }
    };
    assert_eq!(layer.running_stats() == before, how & 2 != 0 || x.element_count() == 0);
    let mut request = Backward::of(&x, &g);
    if adds_residual && how & 8 == 0 {
        request = request.residual(&residual);
    }
    if how & 16 != 0 {
        request = request.recomputed();
    }
    if how & 32 == 0 {
        let found = pollster::block_on(layer.backward(&saved, request));
        assert!(found.is_ok() || !is_plain, "{found:?}");
        if let Ok(gradients) = found {
            assert_eq!((gradients.input.dims(), g.dims()), (x.dims(), x.dims()));
        }
        return;
    }
    let request = request.input_gradient(&mut of_x).weight_gradient(&mut of_weight);
    let mut request = request.bias_gradient((how & 64 != 0).then_some(&mut of_bias));
    if adds_residual {
        request = request.residual_gradient(&mut of_residual);
    }
    if how & 128 != 0 {
        request = request.accumulate();
    }
    if pollster::block_on(layer.backward(&saved, request)).is_ok() {
        assert_eq!((of_x.dims(), g.dims()), (x.dims(), x.dims()));
    }
}
