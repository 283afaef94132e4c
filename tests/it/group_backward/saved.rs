//! The saved context of a forward call: what belongs to it, what is refused, and several calls at
//! once.

use pollster::block_on;
use syncbn::{
    Backward, BatchNorm, Error, Forward, Saved, SyncBatchNorm, Tensor, error::ArgumentError,
    state::LoadOptions,
};

use super::common::*;
use super::problem::{Found, Problem};

const CHANNELS: usize = 3;

fn problem(seed: u64) -> Problem {
    Problem::random(&[&[4, CHANNELS, 5], &[2, CHANNELS, 7], &[1, CHANNELS]], seed)
}

/// A layer after one forward call, with everything that backward needs.
struct Step {
    layer: SyncBatchNorm,
    inputs: Vec<Tensor>,
    grad_outputs: Vec<Tensor>,
    saved: Saved,
}

impl Step {
    fn new(problem: &Problem, kind: Kind) -> Self {
        let layer = problem.layer(kind);
        let inputs = problem.inputs(&layer);
        let grad_outputs = problem.upstream(&layer);
        let saved = block_on(layer.forward_train(&inputs)).unwrap().saved;
        Self { layer, inputs, grad_outputs, saved }
    }

    fn backward(&self) -> Result<Found, Error> {
        self.backward_of(&self.saved)
    }

    fn backward_of(&self, saved: &Saved) -> Result<Found, Error> {
        let request = Backward::of(&self.inputs, &self.grad_outputs);
        block_on(self.layer.backward(saved, request)).map(|gradients| Found::read(&gradients))
    }

    /// Forward once more, which is then what is differentiated.
    fn recompute(&mut self) {
        let request = Forward::of(&self.inputs).untracked();
        self.saved = block_on(self.layer.forward_train(request)).unwrap().saved;
    }

    /// Backward is refused, and the error names the argument.
    fn assert_refused(&self, argument: &str) {
        match self.backward() {
            Err(Error::Argument(error)) => assert_not_saved(&error, argument),
            other => {
                panic!("{:?}, {argument}: {:?}", self.layer.devices(), other.map(|_| "accepted"))
            }
        }
    }
}

fn assert_not_saved(error: &ArgumentError, argument: &str) {
    let ArgumentError::NotSaved { argument: found, .. } = error else { panic!("{error:?}") };
    assert_eq!(found, argument);
    let message = error.to_string();
    let is_not = match argument {
        "saved" => "saved does not fit this call".to_owned(),
        _ => format!("{argument} is not what the saved forward call used"),
    };
    assert!(message.starts_with(&is_not), "{message}");
}

#[test]
fn another_call_s_inputs_are_refused_whatever_they_hold() {
    for kind in Kind::ALL {
        for rank in 0..3 {
            let mut step = Step::new(&problem(400), kind);
            // The same values in other memory.
            let other = problem(400).inputs(&step.layer).swap_remove(rank);
            let own = std::mem::replace(&mut step.inputs[rank], other);
            step.assert_refused(&format!("x[{rank}]"));
            step.inputs[rank] = own;
            assert_eq!(step.backward().unwrap().bits(), problem(400).found(kind).bits());
        }
    }
}

#[test]
fn inputs_written_since_are_refused() {
    for kind in Kind::ALL {
        for rank in 0..3 {
            let problem = problem(401);
            let mut step = Step::new(&problem, kind);
            let other: Vec<f32> = problem.batches[rank].values.iter().map(|x| x + 1.0).collect();
            step.inputs[rank].write(&other).unwrap();
            step.assert_refused(&format!("x[{rank}]"));
            // Forward once more, and they are the inputs.
            step.recompute();
            step.backward().unwrap();
        }
    }
}

#[test]
fn inputs_that_a_later_call_wrote_its_outputs_into_are_refused() {
    for kind in Kind::ALL {
        let mut step = Step::new(&problem(402), kind);
        let others = problem(403).inputs(&step.layer);
        let request = Forward::of(&others).write_to(&mut step.inputs);
        block_on(step.layer.forward_train(request)).unwrap();
        step.assert_refused("x[0]");
    }
}

#[test]
fn another_layer_is_refused() {
    for kind in Kind::ALL {
        let mut first = Step::new(&problem(404), kind);
        let second = Step::new(&problem(404), kind);
        let own = std::mem::replace(&mut first.saved, second.saved.clone());
        first.assert_refused("saved");
        // What comes of taking a layer apart, and of putting one together, is another layer.
        first.saved = own;
        let locals = first.layer.into_local();
        let request = Backward::of(&first.inputs[0], &first.grad_outputs[0]);
        let Error::Argument(error) =
            block_on(locals[0].backward(&first.saved, request)).unwrap_err()
        else {
            panic!("not an argument")
        };
        assert_not_saved(&error, "saved");
        first.layer = SyncBatchNorm::synchronized(locals).unwrap();
        first.assert_refused("saved");
        first.recompute();
        first.backward().unwrap();
        second.backward().unwrap();
    }
}

#[test]
fn what_the_other_kind_of_layer_has_saved_is_refused() {
    let mut step = Step::new(&problem(404), Kind::Gpu);
    let device = step.layer.devices()[0].clone();
    let norm = BatchNorm::new(step.layer.config().clone(), &device).unwrap();
    let x: Vec<Tensor> = problem(404).batches.iter().map(|batch| batch.upload(&device)).collect();
    let request = Backward::of(&x, &x);
    let Error::Argument(error) = norm.backward(&step.saved, request).unwrap_err() else {
        panic!("not an argument")
    };
    assert_not_saved(&error, "saved");
    step.saved = norm.forward_train(&x).unwrap().saved;
    step.assert_refused("saved");
}

#[test]
fn parameters_set_since_are_refused() {
    for kind in Kind::ALL {
        type Change = (&'static str, fn(&mut SyncBatchNorm));
        let changes: [Change; 4] = [
            ("set_parameters", |layer| layer.set_parameters(Some(&[2.0; CHANNELS]), None).unwrap()),
            ("set_parameters, the same values", |layer| {
                let state = block_on(layer.state()).unwrap();
                layer.set_parameters(None, state.bias.as_deref()).unwrap();
            }),
            ("set_parameter_tensors", |layer| {
                let weights =
                    layer.devices().iter().map(|device| device.zeros(&[CHANNELS]).unwrap());
                layer.set_parameter_tensors(weights.collect::<Vec<_>>(), None).unwrap();
            }),
            ("load_state", |layer| {
                let state = block_on(layer.state()).unwrap();
                layer.load_state(&state, &LoadOptions::default()).unwrap();
            }),
        ];
        for (what, change) in changes {
            let mut step = Step::new(&problem(405), kind);
            change(&mut step.layer);
            println!("{kind:?}, {what}");
            step.assert_refused("weight or bias");
        }
        // A setter that fails has set nothing.
        let mut step = Step::new(&problem(405), kind);
        step.layer.set_parameters(Some(&[1.0; CHANNELS + 1]), None).unwrap_err();
        step.backward().unwrap();
    }
}

#[test]
fn running_statistics_set_since_do_not_matter() {
    for kind in Kind::ALL {
        let mut step = Step::new(&problem(406), kind);
        let running = syncbn::stats::RunningStats::new(CHANNELS);
        step.layer.set_running_stats(running).unwrap();
        assert_eq!(step.backward().unwrap().bits(), problem(406).found(kind).bits());
        // Not even where they normalized: the call keeps its own.
        let problem = problem(406);
        let saved = block_on(step.layer.forward_eval(&step.inputs)).unwrap().saved;
        let before = step.backward_of(&saved).unwrap();
        step.layer.set_running_stats(problem.running).unwrap();
        let after = step.backward_of(&saved).unwrap();
        assert_eq!(after.bits(), before.bits());
    }
}

#[test]
fn two_calls_of_one_layer_are_differentiated_in_either_order() {
    for kind in Kind::ALL {
        let problems =
            [problem(407), Problem { parameters: problem(407).parameters, ..problem(408) }];
        let expected = problems.each_ref().map(|problem| problem.found(kind).bits());
        assert_ne!(expected[0], expected[1]);
        for order in [[0, 1], [1, 0]] {
            let layer = problems[0].layer(kind);
            let inputs = problems.each_ref().map(|problem| problem.inputs(&layer));
            let upstream = problems.each_ref().map(|problem| problem.upstream(&layer));
            let saved = inputs
                .each_ref()
                .map(|inputs| block_on(layer.forward_train(inputs)).unwrap().saved);
            let backward = |call: usize| {
                let request = Backward::of(&inputs[call], &upstream[call]);
                Found::read(&block_on(layer.backward(&saved[call], request)).unwrap())
            };
            for call in order {
                assert_eq!(
                    backward(call).bits(),
                    expected[call],
                    "{kind:?}, call {call} of {order:?}"
                );
            }
            // And twice, as for second upstream gradients.
            assert_eq!(backward(0).bits(), expected[0]);
        }
    }
}

#[test]
fn what_recomputing_saves_gives_the_same_gradients_and_moves_nothing() {
    for kind in Kind::ALL {
        let problem = problem(409);
        let layer = problem.layer(kind);
        let inputs = problem.inputs(&layer);
        let grad_outputs = problem.upstream(&layer);
        let forward = block_on(layer.forward_train(&inputs)).unwrap();
        let running = layer.running_stats();
        assert_eq!(
            running.as_ref().unwrap().num_batches_tracked,
            problem.running.num_batches_tracked + 1
        );
        let backward =
            |saved| block_on(layer.backward(saved, Backward::of(&inputs, &grad_outputs))).unwrap();
        let expected = Found::read(&backward(&forward.saved));
        let again = block_on(layer.forward_train(Forward::of(&inputs).untracked())).unwrap();
        assert_eq!(bits(&read(&again.output)), bits(&read(&forward.output)), "{kind:?}");
        let found = Found::read(&backward(&again.saved));
        assert_eq!(found.bits(), expected.bits(), "{kind:?}");
        assert_eq!(layer.running_stats(), running);
    }
}
