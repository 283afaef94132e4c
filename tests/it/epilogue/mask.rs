//! The mask that forward may keep of the activation: the bits of the pass that reads the residual
//! again, in 1/32 of its memory.

use pollster::block_on;
use syncbn::{Backward, DType, Forward, Tensor, low_level::Epilogue};

use super::devices::On;
use super::problem::{EPILOGUES, Problem, Uses, shape};
use super::stored::{Layouts, Types};

/// Large enough for several words, tiles and workgroups, odd throughout.
fn large() -> Vec<Vec<usize>> {
    vec![vec![3, 5, 4_001], vec![17, 5, 9], vec![1, 5, 33]]
}

/// Short planes whose quads straddle two channels: several groups of words, and less than one.
fn straddling() -> Vec<Vec<usize>> {
    vec![vec![8, 5, 1_002], vec![12, 5, 49], vec![4, 5, 5]]
}

/// Short planes of whole quads.
fn short() -> Vec<Vec<usize>> {
    vec![vec![30, 5, 196], vec![3, 5, 8], vec![1, 5, 1_000]]
}

fn with_mask(problem: &Problem) -> Problem {
    Problem { config: problem.config.clone().with_activation_mask(true), ..problem.clone() }
}

#[test]
fn a_mask_gives_the_bits_of_the_residual_read_again() {
    let mut seed = 3000;
    for on in On::ALL {
        for types in Types::all() {
            for layouts in Layouts::all() {
                // Every kind of shape with every layout.
                let dims = match (seed + seed / 4) % 4 {
                    0 => large(),
                    1 => straddling(),
                    2 => short(),
                    _ => shape(seed),
                };
                let problem =
                    Problem::random(&dims, &[types], Epilogue::ADD_RELU, [true, true], seed);
                let expected = problem.run(on.devices(3), &[layouts]).unwrap();
                let found = with_mask(&problem).run(on.devices(3), &[layouts]).unwrap();
                for ((uses, found), (_, expected)) in found.iter().zip(&expected) {
                    assert_eq!(
                        found.bits(),
                        expected.bits(),
                        "seed {seed}: {on:?}, {types:?}, {layouts:?}, {uses:?}"
                    );
                }
                seed += 1;
            }
        }
    }
}

#[test]
fn a_mask_follows_v_and_not_what_backward_is_given() {
    // A kernel that looked at anything but the mask would find all values of the other sign.
    for on in On::ALL {
        let problem = with_mask(&Problem::plain(&large(), Epilogue::ADD_RELU, 31));
        let layer = problem.layer(on.devices(3));
        let mut tensors = problem.tensors(&layer);
        let (saved, y) = block_on(async {
            let forward = layer.forward_train(tensors.forward()).await.unwrap();
            (forward.saved, problem.read(&forward.output))
        });
        let expected = block_on(layer.backward(&saved, tensors.backward_without())).unwrap();
        let expected = problem.pass(y.clone(), &expected);
        for residual in tensors.residuals.iter_mut().flatten() {
            let opposite: Vec<f32> =
                block_on(residual.to_vec()).unwrap().iter().map(|r| -100.0 - r).collect();
            residual.write(&opposite).unwrap();
        }
        let found = block_on(layer.backward(&saved, tensors.backward())).unwrap();
        assert_eq!(problem.pass(y, &found).bits(), expected.bits(), "{on:?}");
    }
}

#[test]
fn a_mask_is_of_one_bit_per_value_and_kept_only_where_a_residual_would_be_read() {
    for on in On::ALL {
        // Whole tiles: a mask is of whole words of every invocation.
        let dims = vec![vec![16, 16, 32, 32], vec![32, 16, 32, 32], vec![48, 16, 32, 32]];
        for epilogue in EPILOGUES {
            let problem = with_mask(&Problem::plain(&dims, epilogue, 32));
            let layer = problem.layer(on.devices(3));
            let tensors = problem.tensors(&layer);
            let saved = block_on(layer.forward_train(tensors.forward())).unwrap().saved;
            let values = 96 * 16 * 32 * 32u64;
            let expected = if epilogue == Epilogue::ADD_RELU { values / 8 } else { 0 };
            assert_eq!(saved.mask_bytes(), expected, "{on:?}, {epilogue:?}");
        }
    }
}

/// Every problem whose gradients may lie over those that they are made of.
fn each_in_place(check: impl Fn(&str, &Problem, On, Layouts)) {
    let mut seed = 4000;
    for on in On::ALL {
        for epilogue in EPILOGUES {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                for mask in [false, true] {
                    let layouts = Layouts::all()[if seed % 2 == 0 { 0 } else { 3 }];
                    assert_eq!(layouts.x, layouts.g);
                    let dims = if seed % 5 == 0 { large() } else { shape(seed) };
                    let types = Types { x: dtype, other: dtype };
                    let mut problem =
                        Problem::random(&dims, &[types], epilogue, [true, true], seed);
                    problem.config = problem.config.with_activation_mask(mask);
                    check(
                        &format!("seed {seed}: {on:?}, {epilogue:?}, {dtype}, mask {mask}"),
                        &problem,
                        on,
                        layouts,
                    );
                    seed += 1;
                }
            }
        }
    }
}

#[test]
fn in_place_gives_the_bits_of_a_pass_out_of_place() {
    each_in_place(|what, problem, on, layouts| {
        let expected = problem.run(on.devices(3), &[layouts]).unwrap();
        let mut layer = problem.layer(on.devices(3));
        for (uses, expected) in expected {
            let mut tensors = problem.tensors_as(layer.devices(), &[layouts]);
            // The statistics move with every call, and are the same for the call that is
            // differentiated.
            let running = layer.running_stats().unwrap();
            let request = tensors.forward();
            let saved = block_on(async {
                match uses {
                    Uses::Group => layer.forward_train(request).await.unwrap().saved,
                    Uses::Running => layer.forward_eval(request).await.unwrap().saved,
                }
            });
            let mut grad_residuals = tensors
                .residuals
                .is_some()
                .then(|| problem.tensors_as(layer.devices(), &[layouts]).x);
            let mut gradients = problem.tensors_as(layer.devices(), &[layouts]).g;
            let request = Backward::in_place(&tensors.x, &mut gradients)
                .residual_gradient(grad_residuals.as_mut());
            let request = match &tensors.residuals {
                Some(residuals) if saved.needs_residual() => request.residual(residuals),
                _ => request,
            };
            block_on(layer.backward(&saved, request)).unwrap();
            let bits = super::common::bits;
            assert_eq!(
                bits(&problem.read(&gradients)),
                bits(&expected.grad_inputs),
                "{what}, {uses:?}"
            );
            let found = grad_residuals.map(|tensors| bits(&problem.read(&tensors)));
            assert_eq!(found, expected.grad_residuals.as_deref().map(bits), "{what}, {uses:?}");

            layer.set_running_stats(running).unwrap();
            let request = Forward::in_place(&mut tensors.x);
            let request = match &tensors.residuals {
                Some(residuals) => request.residual(residuals),
                None => request,
            };
            block_on(async {
                match uses {
                    Uses::Group => layer.forward_train(request).await,
                    Uses::Running => layer.forward_eval(request).await,
                }
            })
            .unwrap();
            assert_eq!(bits(&problem.read(&tensors.x)), bits(&expected.y), "{what}, {uses:?}");
        }
    });
}

#[test]
fn what_cannot_be_written_over_is_refused_and_nothing_is_written() {
    for on in On::ALL {
        let types = Types { x: DType::F16, other: DType::F32 };
        // As many positions as channels, so that the dimensions are the same in both layouts.
        let dims = vec![vec![2, 3, 3], vec![1, 3, 3], vec![0, 3, 3]];
        let problem = Problem::random(&dims, &[types], Epilogue::NONE, [true, true], 33);
        let layer = problem.layer(on.devices(3));
        let mut tensors = problem.tensors_as(layer.devices(), &Layouts::all()[1..2]);
        let saved = block_on(layer.forward_train(&tensors.x)).unwrap().saved;
        let refused = |g: &mut [Tensor], grad_inputs: Option<&mut Vec<Tensor>>| {
            let request = Backward::in_place(&tensors.x, g).input_gradient(grad_inputs);
            block_on(layer.backward(&saved, request)).unwrap_err().to_string()
        };
        let layout = refused(&mut tensors.g, None);
        assert!(
            layout.contains("grad_output[0] is in layout ChannelsLast, expected ChannelsFirst"),
            "{layout}"
        );
        let mut plain = problem.tensors_as(layer.devices(), &Layouts::all()[..1]).g;
        let dtype = refused(&mut plain, None);
        assert!(dtype.contains("grad_output[0] is stored as f32, expected f16"), "{dtype}");
        let mut grad_inputs = problem.tensors_as(layer.devices(), &Layouts::all()[..1]).x;
        let twice = refused(&mut plain, Some(&mut grad_inputs));
        assert!(twice.contains("input_gradient is not wanted here"), "{twice}");
        let unchanged: Vec<_> = problem.g.iter().map(|batch| batch.values.clone()).collect();
        assert_eq!(problem.read(&plain), unchanged);
    }
}
