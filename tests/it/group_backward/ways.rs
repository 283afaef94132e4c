//! Every way in which this crate writes to memory, between every forward and every backward: whole
//! passes, their steps, joint calls, and a layer of one GPU. What forward saw is known by its
//! bytes, whoever wrote them.

use pollster::block_on;
use syncbn::error::{ArgumentError, Error};
use syncbn::stats::{GlobalGradientSums, GlobalStatistics};
use syncbn::{
    Backward, BatchNorm, BatchNormConfig, Forward, Saved, SyncBatchNorm, Workspace, joint,
    low_level::Epilogue,
};

use super::rewritten::{DIMS, Page, VALUES, assert_refused};

fn layer(page: &Page) -> SyncBatchNorm {
    page.layer(Epilogue::NONE)
}

fn on_device(page: &Page) -> BatchNorm {
    BatchNorm::new(BatchNormConfig::torch(DIMS[1]), &page.device).unwrap()
}

fn global(layer: &SyncBatchNorm, page: &Page, place: u64) -> GlobalStatistics {
    block_on(
        layer.synchronize(block_on(layer.local_statistics(&page.at(place))).unwrap()).untracked(),
    )
    .unwrap()
}

fn sums(layer: &SyncBatchNorm, saved: &Saved, page: &Page, place: u64) -> GlobalGradientSums {
    let x = page.at(place);
    let g = page.at(7);
    block_on(
        layer
            .synchronize(block_on(layer.local_gradient_sums(saved, Backward::of(&x, &g))).unwrap()),
    )
    .unwrap()
}

/// A forward call of another layer, of x at place 4.
fn elsewhere(page: &Page) -> (SyncBatchNorm, Saved) {
    let other = layer(page);
    let saved = block_on(other.forward_train(&page.at(4))).unwrap().saved;
    (other, saved)
}

type Write = fn(&Page);

/// Calls that write to place 0, or to its first bytes.
const WRITES: [(&str, Write); 14] = [
    ("another wrap", |page| page.at(0).write(&VALUES).unwrap()),
    ("a handle", |page| page.at(0).handle().unwrap().write(&VALUES).unwrap()),
    ("an output", |page| page.overwrite(page.at(0))),
    ("an output of evaluation in place", |page| {
        block_on(layer(page).forward_eval(Forward::in_place(&mut page.at(0)))).unwrap();
    }),
    ("an output of `normalize`", |page| {
        let other = layer(page);
        let x = page.at(4);
        let global = global(&other, page, 4);
        block_on(other.normalize(Forward::of(&x).write_to(&mut page.at(0)), &global)).unwrap();
    }),
    ("an output of a joint call", |page| {
        let other = layer(page);
        let x = page.at(4);
        let mut y = page.at(0);
        block_on(joint::forward_train([(&other, Forward::of(&x).write_to(&mut y))])).unwrap();
    }),
    ("a gradient in place", |page| {
        let (other, saved) = elsewhere(page);
        block_on(other.backward(&saved, Backward::in_place(&page.at(4), &mut page.at(0)))).unwrap();
    }),
    ("a gradient of a joint call", |page| {
        let (other, saved) = elsewhere(page);
        let x = page.at(4);
        let g = page.at(7);
        let mut dx = page.at(0);
        block_on(joint::backward([(&other, &saved, Backward::of(&x, &g).input_gradient(&mut dx))]))
            .unwrap();
    }),
    ("a gradient of `input_gradients` in place", |page| {
        let (other, saved) = elsewhere(page);
        let sums = sums(&other, &saved, page, 4);
        let x = page.at(4);
        let mut g = page.at(0).handle().unwrap();
        block_on(other.input_gradients(&saved, Backward::in_place(&x, &mut g), &sums)).unwrap();
    }),
    ("a weight gradient of `local_gradient_sums`", |page| {
        let (other, saved) = elsewhere(page);
        let x = page.at(4);
        let g = page.at(7);
        let mut dw = page.half(0, &[DIMS[1]]);
        let request = Backward::of(&x, &g).weight_gradient(&mut dw).accumulate();
        block_on(other.local_gradient_sums(&saved, request)).unwrap();
    }),
    ("a bias gradient", |page| {
        let (other, saved) = elsewhere(page);
        let x = page.at(4);
        let g = page.at(7);
        let mut db = page.half(0, &[DIMS[1]]);
        block_on(other.backward(&saved, Backward::of(&x, &g).bias_gradient(&mut db))).unwrap();
    }),
    ("an output on the device", |page| {
        on_device(page).forward_train(Forward::of(&page.at(4)).write_to(&mut page.at(0))).unwrap();
    }),
    ("an output that is encoded", |page| {
        let (gpu, queue) = page.device.wgpu().unwrap();
        let mut encoder = gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut workspace = Workspace::new(&page.device);
        let x = page.at(4);
        let mut y = page.at(0);
        let request = Forward::of(&x).write_to(&mut y).encode(&mut encoder, &mut workspace);
        on_device(page).forward_train(request).unwrap();
        queue.submit([encoder.finish()]);
    }),
    ("a gradient in place on the device", |page| {
        let other = on_device(page);
        let saved = other.forward_train(&page.at(4)).unwrap().saved;
        other.backward(&saved, Backward::in_place(&page.at(4), &mut page.at(0))).unwrap();
    }),
];

/// Forward calls of x at place 0 that can be differentiated.
fn forwards(layer: &SyncBatchNorm, page: &Page) -> [Saved; 4] {
    let x = page.at(0);
    let global = global(layer, page, 0);
    [
        block_on(layer.forward_train(&x)).unwrap().saved,
        block_on(layer.forward_train(Forward::of(&x).untracked())).unwrap().saved,
        block_on(layer.normalize(&x, &global)).unwrap().saved,
        block_on(joint::forward_train([(layer, &x)])).unwrap().remove(0).saved,
    ]
}

/// What each kind of backward makes of it.
fn backwards(
    layer: &SyncBatchNorm,
    page: &Page,
    saved: &Saved,
    sums: &GlobalGradientSums,
) -> [Result<(), Error>; 4] {
    let x = page.at(0);
    let g = page.at(7);
    let request = || Backward::of(&x, &g);
    let joint =
        block_on(joint::backward([(layer, saved, request())])).map(drop).map_err(
            |error| match error {
                Error::Joint { index: 0, error: source } => *source,
                other => panic!("{other}"),
            },
        );
    [
        block_on(layer.backward(saved, request())).map(drop),
        block_on(layer.local_gradient_sums(saved, request())).map(drop),
        block_on(layer.input_gradients(saved, request(), sums)).map(drop),
        joint,
    ]
}

#[test]
fn every_write_to_the_bytes_of_x_ends_every_saved_call() {
    for (name, write) in WRITES {
        println!("{name}");
        let page = Page::new();
        let layer = layer(&page);
        let calls = forwards(&layer, &page).map(|saved| {
            let sums = sums(&layer, &saved, &page, 0);
            (saved, sums)
        });
        for (saved, sums) in &calls {
            let before = backwards(&layer, &page, saved, sums);
            before.into_iter().for_each(|result| result.expect("nothing was written"));
        }
        write(&page);
        for (saved, sums) in &calls {
            backwards(&layer, &page, saved, sums)
                .into_iter()
                .for_each(|result| assert_refused(result, "x"));
        }
        // Forward once more, and they are the inputs.
        for saved in forwards(&layer, &page) {
            let sums = sums(&layer, &saved, &page, 0);
            let after = backwards(&layer, &page, &saved, &sums);
            after.into_iter().for_each(|result| result.expect("nothing was written since"));
        }
    }
}

#[test]
fn every_write_to_the_bytes_of_x_ends_what_a_layer_of_one_gpu_has_saved() {
    for (name, write) in WRITES {
        println!("{name}");
        let page = Page::new();
        let layer = on_device(&page);
        let saved = layer.forward_train(&page.at(0)).unwrap().saved;
        let backward = || layer.backward(&saved, Backward::of(&page.at(0), &page.at(7))).map(drop);
        backward().expect("nothing was written");
        write(&page);
        assert_refused(backward(), "x");
    }
}

#[test]
fn what_normalize_wrote_over_its_input_is_not_differentiated() {
    let page = Page::new();
    let layer = layer(&page);
    let global = global(&layer, &page, 0);
    let saved =
        block_on(layer.normalize(Forward::in_place(&mut page.at(0)), &global)).unwrap().saved;
    let sums = GlobalGradientSums::new(
        [syncbn::stats::GradientSums { sum_dy: 0.0, sum_dy_xmu: 0.0 }; DIMS[1]],
    );
    for result in backwards(&layer, &page, &saved, &sums) {
        let Err(Error::Argument(ArgumentError::NotSaved { argument, .. })) = result else {
            panic!("{result:?}")
        };
        assert_eq!(argument, "x");
    }
}
