//! What backward needs again of a residual: nothing where it is only added, the tensor itself where
//! it decides on the activation.

use pollster::block_on;
use syncbn::{
    Backward, Error, Saved, SyncBatchNorm, Tensor, error::ArgumentError, low_level::Epilogue,
};

use super::devices::On;
use super::problem::{EPILOGUES, Pass, Problem, Tensors, Uses, shape};

/// A layer after one forward call, with everything that backward needs.
struct Step {
    problem: Problem,
    layer: SyncBatchNorm,
    tensors: Tensors,
    y: Vec<Vec<f32>>,
    saved: Saved,
}

impl Step {
    fn new(epilogue: Epilogue, on: On, uses: Uses) -> Self {
        let problem = Problem::plain(&shape(0), epilogue, 900);
        let layer = problem.layer(on.devices(3));
        let tensors = problem.tensors(&layer);
        let forward = block_on(async {
            match uses {
                Uses::Group => layer.forward_train(tensors.forward()).await,
                Uses::Running => layer.forward_eval(tensors.forward()).await,
            }
        });
        let forward = forward.unwrap();
        Self { y: problem.read(&forward.output), problem, layer, tensors, saved: forward.saved }
    }

    fn backward(&self, request: Backward<'_, Vec<Tensor>>) -> Result<Pass, ArgumentError> {
        match block_on(self.layer.backward(&self.saved, request)) {
            Ok(backward) => Ok(self.problem.pass(self.y.clone(), &backward)),
            Err(Error::Argument(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }

    fn assert_not_saved(&self, argument: &str) {
        let error = self.backward(self.tensors.backward()).unwrap_err();
        let ArgumentError::NotSaved { argument: found, .. } = &error else { panic!("{error:?}") };
        assert_eq!(found, argument);
        assert!(error.to_string().contains("the saved forward call"), "{error}");
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
            assert_eq!(step.saved.needs_residual(), epilogue == Epilogue::ADD_RELU);
            let without = step.backward(step.tensors.backward_without());
            match epilogue {
                Epilogue::ADD_RELU => {
                    assert_eq!(without, Err(ArgumentError::NoResidual))
                }
                _ => drop(without.unwrap()),
            }
        }
    });
}

#[test]
fn a_residual_that_is_only_added_may_be_given_again_or_be_gone() {
    each(|on, uses| {
        let mut step = Step::new(Epilogue::ADD, on, uses);
        let expected = step.backward(step.tensors.backward()).unwrap();
        assert_eq!(
            step.backward(step.tensors.backward_without()).unwrap().bits(),
            expected.bits(),
            "{on:?}, {uses:?}"
        );
        for residual in step.residuals() {
            residual.write(&vec![f32::NAN; residual.element_count()]).unwrap();
        }
        assert_eq!(
            step.backward(step.tensors.backward()).unwrap().bits(),
            expected.bits(),
            "{on:?}, {uses:?}"
        );
        step.tensors.residuals = None;
        assert_eq!(
            step.backward(step.tensors.backward()).unwrap().bits(),
            expected.bits(),
            "{on:?}, {uses:?}"
        );
    });
}

#[test]
fn another_residual_than_that_of_the_call_is_refused() {
    each(|on, uses| {
        let mut step = Step::new(Epilogue::ADD_RELU, on, uses);
        let expected = step.backward(step.tensors.backward()).unwrap();
        for rank in 0..3 {
            // The same values in other memory.
            let other = step.problem.tensors(&step.layer).residuals.unwrap().swap_remove(rank);
            let own = std::mem::replace(&mut step.residuals()[rank], other);
            // An empty tensor of a GPU has memory of its own, too.
            step.assert_not_saved(&format!("residual[{rank}]"));
            step.residuals()[rank] = own;
            assert_eq!(
                step.backward(step.tensors.backward()).unwrap().bits(),
                expected.bits(),
                "{on:?}, {uses:?}"
            );
        }
        // The residual of another rank, where it fits.
        step.tensors.residuals = Some(step.problem.tensors(&step.layer).x);
        step.assert_not_saved("residual[0]");
    });
}

#[test]
fn a_residual_written_since_is_refused() {
    each(|on, uses| {
        for rank in 0..2 {
            let mut step = Step::new(Epilogue::ADD_RELU, on, uses);
            let same = step.problem.residuals.as_ref().unwrap()[rank].values.clone();
            step.residuals()[rank].write(&same).unwrap();
            step.assert_not_saved(&format!("residual[{rank}]"));
            // Forward once more, and they are the residuals.
            step.saved = block_on(step.layer.forward_train(step.tensors.forward().untracked()))
                .unwrap()
                .saved;
            step.backward(step.tensors.backward()).unwrap();
        }
        // A later call wrote its outputs into them.
        let mut step = Step::new(Epilogue::ADD_RELU, on, uses);
        let other = step.problem.tensors(&step.layer);
        let Step { layer, tensors, .. } = &mut step;
        let request = other.forward().write_to(tensors.residuals.as_mut().unwrap());
        block_on(layer.forward_eval(request)).unwrap();
        step.assert_not_saved("residual[0]");
    });
}

#[test]
fn x_and_its_residual_are_told_apart() {
    each(|on, uses| {
        let step = Step::new(Epilogue::ADD_RELU, on, uses);
        let residuals = step.tensors.residuals.as_ref().unwrap();
        let request = Backward::of(residuals, &step.tensors.g).residual(&step.tensors.x);
        let error = step.backward(request).unwrap_err();
        assert!(
            matches!(&error, ArgumentError::NotSaved { argument, .. } if argument == "x[0]"),
            "{error:?}"
        );
    });
}
