//! The steps of a pass, taken one at a time, cost what the pass costs; what may be asked of a pass
//! is counted.

use pollster::block_on;
use syncbn::{BatchNormConfig, Forward, Saved, SyncBatchNorm, joint, low_level::Epilogue};

use super::counter::{Cost, counting, spent};
use super::{BACKWARD, DIMS, FORWARD, Step, Tensors, noop, only};

/// Forward and backward of one layer in three steps each.
fn in_steps(bn: &SyncBatchNorm, tensors: &mut Tensors) -> [Cost; 2] {
    spent();
    let local = block_on(bn.local_statistics(&tensors.x)).unwrap();
    let global = block_on(bn.synchronize(local)).unwrap();
    let saved = block_on(bn.normalize(tensors.forward(), &global)).unwrap().saved;
    let forward = spent();
    let local = block_on(bn.local_gradient_sums(&saved, tensors.of_parameters())).unwrap();
    let global = block_on(bn.synchronize(local)).unwrap();
    block_on(bn.input_gradients(&saved, tensors.of_activations(&saved), &global)).unwrap();
    [forward, spent()]
}

#[test]
fn three_steps_cost_what_the_whole_pass_costs() {
    let _counting = counting();
    for (epilogue, mask) in [(Epilogue::NONE, false), (Epilogue::ADD_RELU, true)] {
        for ranks in [1, 3] {
            let config = BatchNormConfig::torch(DIMS[1])
                .with_residual(epilogue.residual)
                .with_activation(epilogue.activation)
                .with_activation_mask(mask);
            let mut step = Step::new(config, &noop(), ranks);
            let expected = step.repeated();
            let Step { bn, tensors } = &mut step;
            in_steps(bn, tensors);
            assert_eq!(in_steps(bn, tensors), expected, "{epilogue:?}, mask {mask}, {ranks} ranks");
        }
    }
}

/// What a request spends the third time.
fn third(mut request: impl FnMut()) -> Cost {
    request();
    request();
    spent();
    request();
    spent()
}

#[test]
fn a_call_that_is_untracked_or_in_place_costs_what_another_costs() {
    let _counting = counting();
    let mut step = Step::plain(&noop());
    let Step { bn, tensors } = &mut step;
    let forward = only(FORWARD.0, FORWARD.1);
    let untracked =
        third(|| drop(block_on(bn.forward_train(tensors.forward().untracked())).unwrap()));
    assert_eq!(untracked, forward);
    assert_eq!(third(|| drop(block_on(bn.forward_train(tensors.in_place())).unwrap())), forward);
    // Evaluation takes no sums: scratch, bindings, scratch.
    assert_eq!(third(|| drop(block_on(bn.forward_eval(tensors.forward())).unwrap())), only(1, 3));
    let saved = block_on(bn.forward_train(tensors.forward())).unwrap().saved;
    let in_place =
        third(|| drop(block_on(bn.backward(&saved, tensors.backward_in_place(&saved))).unwrap()));
    assert_eq!(in_place, only(BACKWARD.0, BACKWARD.1));
}

#[test]
fn gradients_that_are_added_cost_a_submission_of_each_parameter() {
    let _counting = counting();
    let mut step = Step::plain(&noop());
    let saved = step.forward();
    let Step { bn, tensors } = &mut step;
    let accumulated = third(|| {
        drop(block_on(bn.backward(&saved, tensors.backward(&saved).accumulate())).unwrap())
    });
    // Scratch for what is added, bindings, and the scratch is recycled: for the weight and for
    // the bias.
    assert_eq!(accumulated, only(BACKWARD.0 + 2, BACKWARD.1 + 2 * 3));
}

#[test]
fn evaluation_of_several_layers_is_one_submission() {
    let _counting = counting();
    let device = noop();
    let mut steps: Vec<Step> = (0..3).map(|_| Step::plain(&device)).collect();
    let evaluate = || {
        let calls = steps.iter_mut().map(|step| (&step.bn, step.tensors.forward()));
        drop::<Vec<Saved>>(
            block_on(joint::forward_eval(calls))
                .unwrap()
                .into_iter()
                .map(|forward| forward.saved)
                .collect(),
        );
    };
    assert_eq!(third(evaluate), only(1, 3 * 3));
    let x: Vec<_> = steps.iter().map(|step| &step.tensors.x).collect();
    // Statistics that are all of one exchange, from sums of one submission each.
    let synchronize = || {
        let local = steps
            .iter()
            .zip(&x)
            .map(|(step, x)| (&step.bn, block_on(step.bn.local_statistics(*x)).unwrap()));
        block_on(joint::synchronize(local)).unwrap();
    };
    assert_eq!(third(synchronize), only(3, 3 * (FORWARD.1 - 3)));
    let mut written = Tensors::new(steps[0].bn.config(), &device, 1);
    let untracked = |y: &mut Tensors| {
        let [a, b] = [&steps[0], &steps[1]];
        let calls = [
            (&a.bn, Forward::of(&a.tensors.x).write_to(&mut y.y)),
            (&b.bn, Forward::of(&b.tensors.x).write_to(&mut y.dx)),
        ];
        block_on(joint::forward_train(calls.map(|(bn, request)| (bn, request.untracked()))))
            .unwrap();
    };
    assert_eq!(third(|| untracked(&mut written)), only(FORWARD.0, 5 + 2 + 2 * 3));
}

#[test]
fn backward_of_a_padded_batch_uploads_no_lengths() {
    let _counting = counting();
    let mut step = Step::plain(&noop());
    let lengths = [vec![5; DIMS[0]]];
    let request = step.tensors.forward().lengths(&lengths);
    let saved = block_on(step.bn.forward_train(request)).unwrap().saved;
    // Each sample has tiles, whose sums take locks of their own.
    let again = third(|| step.backward(&saved));
    assert_eq!((again.submissions, again.allocations, again.bind_groups), (BACKWARD.0, 0, 0));
}
