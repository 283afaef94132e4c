//! What is special about a layer of one GPU: passes in an encoder, and values that are not finite.

use syncbn::low_level::Epilogue;
use syncbn::{BatchNorm, DoubleBackward, Forward, Layout, Workspace};

use super::common::epilogue::problem::{Problem, Uses};
use super::common::*;
use super::double::Case;
use super::plain;

const LAYOUT: Layout = Layout::ChannelsFirst;

#[test]
fn forward_and_double_backward_in_one_encoder_give_the_bits_of_two_submissions() {
    let device = &virtual_gpus()[0];
    let (raw, queue) = device.wgpu().unwrap();
    let case = plain(1, Epilogue::RELU, 9);
    let expected = case.run_on_one_gpu(device, LAYOUT, Uses::Group);
    let mut layer = BatchNorm::new(case.problem.config.clone(), device).unwrap();
    layer.set_parameters(case.problem.weight(), case.problem.bias()).unwrap();
    let on_device =
        |batches: &Vec<Batch>| batches.iter().map(|of| of.upload(device)).collect::<Vec<_>>();
    let x = on_device(&case.problem.x);
    let g = on_device(&case.problem.g);
    let v = on_device(case.v.as_ref().unwrap());
    let vectors = |of: &Option<Vec<Vec<f32>>>| -> Vec<_> {
        let of = of.iter().flatten();
        of.map(|values| device.upload(&[values.len()], values).unwrap()).collect()
    };
    let u = vectors(&case.u);
    let q = vectors(&case.q);
    let mut workspace = Workspace::new(device);
    // Twice, so that the second finds the memory of the first.
    for _ in 0..2 {
        let mut encoder = raw.create_command_encoder(&Default::default());
        let forward = Forward::of(&x).encode(&mut encoder, &mut workspace);
        let saved = layer.forward_train(forward).unwrap().saved;
        let request = DoubleBackward::of(&x, &g)
            .input_cotangent(&v)
            .weight_cotangent(&u)
            .bias_cotangent(&q)
            .encode(&mut encoder, &mut workspace);
        let second = layer.double_backward(&saved, request).unwrap();
        queue.submit([encoder.finish()]);
        assert_eq!(case.found(&second), expected);
    }
}

#[test]
fn a_value_that_is_not_finite_spoils_what_depends_on_it_and_no_other_channel() {
    let device = &virtual_gpus()[0];
    let run = |case: &Case| case.run_on_one_gpu(device, LAYOUT, Uses::Group);
    let clean = plain(4, Epilogue::NONE, 5);
    let expected = run(&clean);
    for bad in [f32::NAN, f32::INFINITY] {
        // Of channel 0.
        let mut case = clean.clone();
        case.v.as_mut().unwrap()[1].values[2] = bad;
        let of_v = run(&case);
        let mut case = clean.clone();
        case.problem.g[0].values[3] = bad;
        let of_g = run(&case);
        let mut case = clean.clone();
        case.u.as_mut().unwrap()[0][0] = bad;
        let of_u = run(&case);
        for (rank, batch) in clean.problem.x.iter().enumerate() {
            for i in 0..batch.values.len() {
                let is_hit = batch.channel(i) == 0;
                let what = format!("{bad}, value {i} of rank {rank}");
                for found in [&of_v, &of_g, &of_u] {
                    assert_eq!(found.inputs[rank][i].is_nan(), is_hit, "{what}");
                    if !is_hit {
                        assert_eq!(found.inputs[rank][i], expected.inputs[rank][i], "{what}");
                    }
                }
                assert_eq!(of_v.grad_outputs[rank][i].is_nan(), is_hit, "{what}");
                let is_own = is_hit && rank == 0;
                assert_eq!(of_u.grad_outputs[rank][i].is_nan(), is_own, "{what}");
                // It is linear in grad_output, so that it does not depend on it.
                let [found, clean] = [&of_g, &expected].map(|of| of.grad_outputs[rank][i]);
                assert_eq!(found, clean, "{what}");
            }
            let of_weight = |found: &super::double::Found| found.weights.clone().unwrap()[rank][0];
            assert!(of_weight(&of_v).is_nan() || rank != 1);
            assert!(of_weight(&of_g).is_nan());
            assert_eq!(of_weight(&of_u), of_weight(&expected));
        }
    }
}

#[test]
fn statistics_of_each_rank_are_differentiated_by_each_rank() {
    let device = &virtual_gpus()[0];
    let mut case = plain(1, Epilogue::RELU, 8);
    case.problem.config = case.problem.config.with_track_running_stats(false);
    // The last rank has one value per channel, and so no statistics.
    let part = |ranks: std::ops::Range<usize>| {
        let some = |batches: &Vec<Batch>| batches[ranks.clone()].to_vec();
        let vectors = |of: &Option<Vec<Vec<f32>>>| of.as_ref().map(|of| of[ranks.clone()].to_vec());
        let x = some(&case.problem.x);
        let g = some(&case.problem.g);
        let problem = Problem { x, g, ..case.problem.clone() };
        Case { problem, v: case.v.as_ref().map(some), u: vectors(&case.u), q: vectors(&case.q) }
    };
    let all = part(0..2).run_on_one_gpu(device, LAYOUT, Uses::Running);
    for rank in 0..2 {
        let alone = part(rank..rank + 1).run_on_one_gpu(device, LAYOUT, Uses::Group);
        assert_eq!(alone.inputs[0], all.inputs[rank]);
        assert_eq!(alone.grad_outputs[0], all.grad_outputs[rank]);
        assert_eq!(alone.weights.unwrap()[0], all.weights.as_ref().unwrap()[rank]);
    }
}

#[test]
fn large_means_of_x_and_of_gradients_cost_little() {
    let dims = [vec![40, 4, 48], vec![9, 4, 5]];
    for (of_x, of_gradients) in [(1e4, 0.0), (0.0, 100.0), (1e3, 30.0)] {
        let mut case = Case::new(Problem::plain(&dims, Epilogue::NONE, 3), 3);
        let shift = |batches: &mut Vec<Batch>, by: f32| {
            batches.iter_mut().flat_map(|batch| &mut batch.values).for_each(|value| *value += by);
        };
        shift(&mut case.problem.x, of_x);
        shift(&mut case.problem.g, of_gradients);
        case.v.iter_mut().for_each(|v| shift(v, of_gradients));
        let found = case.run_on_one_gpu(&virtual_gpus()[0], LAYOUT, Uses::Group);
        let share = case.compare(Uses::Group, &found);
        share.unwrap_or_else(|error| panic!("{of_x}, {of_gradients}: {error}"));
    }
}
