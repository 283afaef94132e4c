//! What backward needs again of a residual: nothing where it is only added, the tensor itself where it decides on the
//! activation.

use pollster::block_on;
use syncbn::{ArgumentError, DeviceGroup, Epilogue, Error, Inputs, SavedForward, Tensor};

use super::devices::On;
use super::problem::{EPILOGUES, Pass, Problem, Tensors, Uses, shape};

/// A layer after one forward call, with everything that backward needs.
struct Step {
    problem: Problem,
    group: DeviceGroup,
    tensors: Tensors,
    y: Vec<Vec<f32>>,
    saved: SavedForward,
}

impl Step {
    fn new(epilogue: Epilogue, on: On, uses: Uses) -> Self {
        let problem = Problem::plain(&shape(0), epilogue, 900);
        let mut group = problem.group(on.devices(3));
        let tensors = problem.tensors(&group);
        let forward = block_on(async {
            match uses {
                Uses::Group => group.forward_train(tensors.inputs()).await,
                Uses::Running => group.forward_eval(tensors.inputs()).await,
            }
        });
        let forward = forward.unwrap();
        Self { y: problem.read(&forward.outputs), problem, group, tensors, saved: forward.saved }
    }

    fn backward(&self, inputs: Inputs<'_>) -> Result<Pass, ArgumentError> {
        match block_on(self.group.backward(&self.saved, inputs, &self.tensors.g)) {
            Ok(backward) => Ok(self.problem.pass(self.y.clone(), &backward)),
            Err(Error::Argument(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }

    fn assert_not_saved(&self, argument: &str) {
        let error = self.backward(self.tensors.inputs()).unwrap_err();
        let ArgumentError::NotSaved { argument: found, .. } = &error else { panic!("{error:?}") };
        assert_eq!(found, argument);
        assert!(error.to_string().contains("run forward again"), "{error}");
    }

    fn residuals(&mut self) -> &mut Vec<Tensor> {
        self.tensors.residuals.as_mut().unwrap()
    }
}

/// On every kind of device, for both kinds of statistics.
fn each(check: impl Fn(On, Uses)) {
    On::ALL.into_iter().for_each(|on| Uses::ALL.into_iter().for_each(|uses| check(on, uses)));
}

#[test]
fn only_a_residual_behind_which_there_is_an_activation_is_needed_again() {
    each(|on, uses| {
        for epilogue in EPILOGUES {
            let step = Step::new(epilogue, on, uses);
            assert_eq!(step.saved.needs_residuals(), epilogue == Epilogue::AddRelu);
            let without = step.backward((&step.tensors.x).into());
            match epilogue {
                Epilogue::AddRelu => assert_eq!(without, Err(ArgumentError::NoResidual { epilogue })),
                _ => drop(without.unwrap()),
            }
        }
    });
}

#[test]
fn a_residual_that_is_only_added_may_be_given_again_or_be_gone() {
    each(|on, uses| {
        let mut step = Step::new(Epilogue::Add, on, uses);
        let expected = step.backward(step.tensors.inputs()).unwrap();
        assert_eq!(step.backward((&step.tensors.x).into()).unwrap().bits(), expected.bits(), "{on:?}, {uses:?}");
        for residual in step.residuals() {
            residual.write(&vec![f32::NAN; residual.element_count()]).unwrap();
        }
        assert_eq!(step.backward(step.tensors.inputs()).unwrap().bits(), expected.bits(), "{on:?}, {uses:?}");
        step.tensors.residuals = None;
        assert_eq!(step.backward(step.tensors.inputs()).unwrap().bits(), expected.bits(), "{on:?}, {uses:?}");
    });
}

#[test]
fn another_residual_than_that_of_the_call_is_refused() {
    each(|on, uses| {
        let mut step = Step::new(Epilogue::AddRelu, on, uses);
        let expected = step.backward(step.tensors.inputs()).unwrap();
        for rank in 0..3 {
            // The same values in other memory.
            let other = step.problem.tensors(&step.group).residuals.unwrap().swap_remove(rank);
            let own = std::mem::replace(&mut step.residuals()[rank], other);
            // An empty tensor of a GPU has memory of its own, too.
            step.assert_not_saved(&format!("residuals[{rank}]"));
            step.residuals()[rank] = own;
            assert_eq!(step.backward(step.tensors.inputs()).unwrap().bits(), expected.bits(), "{on:?}, {uses:?}");
        }
        // The residual of another rank, where it fits.
        step.tensors.residuals = Some(step.problem.tensors(&step.group).x);
        step.assert_not_saved("residuals[0]");
    });
}

#[test]
fn a_residual_written_since_is_refused() {
    each(|on, uses| {
        for rank in 0..2 {
            let mut step = Step::new(Epilogue::AddRelu, on, uses);
            let same = step.problem.residuals.as_ref().unwrap()[rank].values.clone();
            step.residuals()[rank].write(&same).unwrap();
            step.assert_not_saved(&format!("residuals[{rank}]"));
            // Forward once more, and they are the residuals.
            step.saved = block_on(step.group.forward_recompute(step.tensors.inputs())).unwrap().saved;
            step.backward(step.tensors.inputs()).unwrap();
        }
        // A later call wrote its outputs into them.
        let mut step = Step::new(Epilogue::AddRelu, on, uses);
        let other = step.problem.tensors(&step.group);
        let Step { group, tensors, .. } = &mut step;
        block_on(group.forward_eval_into(other.inputs(), tensors.residuals.as_mut().unwrap())).unwrap();
        step.assert_not_saved("residuals[0]");
    });
}

#[test]
fn x_and_its_residual_are_told_apart() {
    each(|on, uses| {
        let step = Step::new(Epilogue::AddRelu, on, uses);
        let residuals = step.tensors.residuals.as_ref().unwrap();
        let error = step.backward(Inputs::with_residuals(residuals, &step.tensors.x)).unwrap_err();
        assert!(matches!(&error, ArgumentError::NotSaved { argument, .. } if argument == "inputs[0]"), "{error:?}");
    });
}
