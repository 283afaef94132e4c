//! Owns the text of a failure: the error, and the smallest failing input with its values.

use std::fmt::{Formatter, Result};

use crate::problem::{Problem, epilogue_name};
use crate::record::{Failure, Smallest};
use syncbn_bench::names::{DTYPES, LAYOUTS, name_of};

/// Values of a tensor that are written; JSON has all of them.
const VALUES: usize = 64;

pub fn write(f: &mut Formatter<'_>, failure: &Failure) -> Result {
    let Failure { section, case, merge, what, smallest } = failure;
    writeln!(f, "\n## FAILED: {section}, {case}, merged on the {}\n\n{what}\n", merge.name())?;
    match smallest {
        None => writeln!(f, "No smaller input was found to fail against the definition."),
        Some(Smallest { wrong, problem }) => {
            writeln!(
                f,
                "The smallest input that was found to fail, {} values of x:\n\n```text",
                problem.values()
            )?;
            write_problem(f, problem)?;
            writeln!(f, "{wrong}\n```")
        }
    }
}

fn write_problem(f: &mut Formatter<'_>, problem: &Problem) -> Result {
    let Problem { dtype, layout, epilogue, eps, weight, bias, ranks } = problem;
    let dtype = name_of(&DTYPES, dtype);
    let layout = name_of(&LAYOUTS, layout);
    writeln!(f, "{dtype}, channels {layout}, epilogue {}, eps {eps:e}", epilogue_name(*epilogue))?;
    writeln!(f, "weight {}\nbias {}", list(weight), list(bias))?;
    for (rank, shard) in ranks.iter().enumerate() {
        writeln!(f, "rank {rank}, (N, C, L) {:?}", shard.dims)?;
        writeln!(f, "  x {}\n  grad_output {}", list(&shard.x), list(&shard.grad_output))?;
        if let Some(residual) = &shard.residual {
            writeln!(f, "  residual {}", list(residual))?;
        }
    }
    Ok(())
}

/// The first values, each so that it reads back to the same bits.
fn list(values: &[f32]) -> String {
    let shown: Vec<String> = values.iter().take(VALUES).map(|value| format!("{value:?}")).collect();
    let more = values.len().saturating_sub(VALUES);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("[{}{more}]", shown.join(", "))
}
