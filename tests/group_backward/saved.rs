//! The saved context of a forward call: what belongs to it, what is refused, and several calls at once.

use pollster::block_on;
use syncbn::{ArgumentError, DeviceGroup, Error, SavedForward, Tensor};

use super::common::*;
use super::problem::{Found, Problem};

const CHANNELS: usize = 3;

fn problem(seed: u64) -> Problem {
    Problem::random(&[&[4, CHANNELS, 5], &[2, CHANNELS, 7], &[1, CHANNELS]], seed)
}

/// A layer after one forward call, with everything that backward needs.
struct Step {
    group: DeviceGroup,
    inputs: Vec<Tensor>,
    grad_outputs: Vec<Tensor>,
    saved: SavedForward,
}

impl Step {
    fn new(problem: &Problem, kind: Kind) -> Self {
        let mut group = problem.group(kind);
        let (inputs, grad_outputs) = (problem.inputs(&group), problem.upstream(&group));
        let saved = block_on(group.forward_train(&inputs)).unwrap().saved;
        Self { group, inputs, grad_outputs, saved }
    }

    fn backward(&self) -> Result<Found, Error> {
        block_on(self.group.backward(&self.saved, &self.inputs, &self.grad_outputs)).map(|b| Found::read(&b))
    }

    /// Backward is refused, and the error names the argument.
    fn assert_refused(&self, argument: &str) {
        match self.backward() {
            Err(Error::Argument(error)) => assert_not_saved(&error, argument),
            other => panic!("{:?}, {argument}: {:?}", self.group.devices(), other.map(|_| "accepted")),
        }
    }
}

fn assert_not_saved(error: &ArgumentError, argument: &str) {
    let ArgumentError::NotSaved { argument: found, .. } = error else { panic!("{error:?}") };
    assert_eq!(found, argument);
    let message = error.to_string();
    assert!(message.contains(argument) && message.contains("run forward again"), "{message}");
}

#[test]
fn another_call_s_inputs_are_refused_whatever_they_hold() {
    for kind in Kind::ALL {
        for rank in 0..3 {
            let mut step = Step::new(&problem(400), kind);
            // The same values in other memory.
            let other = problem(400).inputs(&step.group).swap_remove(rank);
            let own = std::mem::replace(&mut step.inputs[rank], other);
            step.assert_refused(&format!("inputs[{rank}]"));
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
            step.assert_refused(&format!("inputs[{rank}]"));
            // Forward once more, and they are the inputs.
            step.saved = block_on(step.group.forward_recompute(&step.inputs)).unwrap().saved;
            step.backward().unwrap();
        }
    }
}

#[test]
fn inputs_that_a_later_call_wrote_its_outputs_into_are_refused() {
    for kind in Kind::ALL {
        let mut step = Step::new(&problem(402), kind);
        let others = problem(403).inputs(&step.group);
        block_on(step.group.forward_train_into(&others, &mut step.inputs)).unwrap();
        step.assert_refused("inputs[0]");
    }
}

#[test]
fn another_layer_is_refused() {
    for kind in Kind::ALL {
        let (mut first, second) = (Step::new(&problem(404), kind), Step::new(&problem(404), kind));
        let own = std::mem::replace(&mut first.saved, second.saved.clone());
        first.assert_refused("saved");
        // What comes of taking a group apart, and of putting one together, is another layer.
        first.saved = own;
        let locals = first.group.into_local();
        let error = block_on(locals[0].backward(&first.saved, &first.inputs[..1], &first.grad_outputs[..1]));
        let Error::Argument(error) = error.unwrap_err() else { panic!("not an argument") };
        assert_not_saved(&error, "saved");
        first.group = DeviceGroup::synchronized(locals).unwrap();
        first.assert_refused("saved");
        first.saved = block_on(first.group.forward_recompute(&first.inputs)).unwrap().saved;
        first.backward().unwrap();
        second.backward().unwrap();
    }
}

#[test]
fn parameters_set_since_are_refused() {
    for kind in Kind::ALL {
        type Change = (&'static str, fn(&mut DeviceGroup));
        let changes: [Change; 4] = [
            ("set_parameters", |group| group.set_parameters(Some(&[2.0; CHANNELS]), None).unwrap()),
            ("set_parameters, the same values", |group| {
                let state = block_on(group.state_dict()).unwrap();
                group.set_parameters(None, state.bias.as_deref()).unwrap();
            }),
            ("set_parameter_tensors", |group| {
                let weights = group.devices().iter().map(|device| device.zeros(&[CHANNELS]).unwrap()).collect();
                group.set_parameter_tensors(Some(weights), None).unwrap();
            }),
            ("load_state_dict", |group| {
                let state = block_on(group.state_dict()).unwrap();
                group.load_state_dict(&state, false).unwrap();
            }),
        ];
        for (what, change) in changes {
            let mut step = Step::new(&problem(405), kind);
            change(&mut step.group);
            println!("{kind:?}, {what}");
            step.assert_refused("weight or bias");
        }
        // A setter that fails has set nothing.
        let mut step = Step::new(&problem(405), kind);
        step.group.set_parameters(Some(&[1.0; CHANNELS + 1]), None).unwrap_err();
        step.backward().unwrap();
    }
}

#[test]
fn running_statistics_set_since_do_not_matter() {
    for kind in Kind::ALL {
        let mut step = Step::new(&problem(406), kind);
        let running = syncbn::stats::RunningStats::new(CHANNELS);
        step.group.set_running_stats(running).unwrap();
        assert_eq!(step.backward().unwrap().bits(), problem(406).found(kind).bits());
        // Not even where they normalized: the call keeps its own.
        let problem = problem(406);
        let saved = block_on(step.group.forward_eval(&step.inputs)).unwrap().saved;
        let before = block_on(step.group.backward(&saved, &step.inputs, &step.grad_outputs)).unwrap();
        step.group.set_running_stats(problem.running).unwrap();
        let after = block_on(step.group.backward(&saved, &step.inputs, &step.grad_outputs)).unwrap();
        assert_eq!(Found::read(&after).bits(), Found::read(&before).bits());
    }
}

#[test]
fn two_calls_of_one_layer_are_differentiated_in_either_order() {
    for kind in Kind::ALL {
        let problems = [problem(407), Problem { parameters: problem(407).parameters, ..problem(408) }];
        let expected = problems.each_ref().map(|problem| problem.found(kind).bits());
        assert_ne!(expected[0], expected[1]);
        for order in [[0, 1], [1, 0]] {
            let mut group = problems[0].group(kind);
            let inputs = problems.each_ref().map(|problem| problem.inputs(&group));
            let upstream = problems.each_ref().map(|problem| problem.upstream(&group));
            let saved = inputs.each_ref().map(|inputs| block_on(group.forward_train(inputs)).unwrap().saved);
            for call in order {
                let backward = block_on(group.backward(&saved[call], &inputs[call], &upstream[call])).unwrap();
                assert_eq!(Found::read(&backward).bits(), expected[call], "{kind:?}, call {call} of {order:?}");
            }
            // And twice, as for second upstream gradients.
            let again = block_on(group.backward(&saved[0], &inputs[0], &upstream[0])).unwrap();
            assert_eq!(Found::read(&again).bits(), expected[0]);
        }
    }
}

#[test]
fn what_recomputing_saves_gives_the_same_gradients_and_moves_nothing() {
    for kind in Kind::ALL {
        let problem = problem(409);
        let mut group = problem.group(kind);
        let (inputs, grad_outputs) = (problem.inputs(&group), problem.upstream(&group));
        let forward = block_on(group.forward_train(&inputs)).unwrap();
        let running = group.running_stats().cloned();
        assert_eq!(running.as_ref().unwrap().num_batches_tracked, problem.running.num_batches_tracked + 1);
        let expected = Found::read(&block_on(group.backward(&forward.saved, &inputs, &grad_outputs)).unwrap());
        let again = block_on(group.forward_recompute(&inputs)).unwrap();
        assert_eq!(bits(&read(&again.outputs)), bits(&read(&forward.outputs)), "{kind:?}");
        let found = Found::read(&block_on(group.backward(&again.saved, &inputs, &grad_outputs)).unwrap());
        assert_eq!(found.bits(), expected.bits(), "{kind:?}");
        assert_eq!(group.running_stats().cloned(), running);
    }
}
