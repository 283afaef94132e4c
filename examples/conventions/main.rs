//! What differs between PyTorch's and MindSpore's synchronized batch normalization: a table in
//! which every cell is read off a layer that ran, or is the error that the layer's parameters give.
//!
//! `cargo run --release --example conventions`. Two ranks on the host normalize the same small
//! batch under both conventions; no GPU is needed. `layer` runs them, `rows` asks one question
//! each, `table` draws.

mod layer;
mod rows;
mod table;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use syncbn::Error;
use table::Table;

const HEAD: &str = "\
The two conventions of synchronized batch normalization, run on the same data: one channel, 4 8 on rank 0 and
10 14 12 12 on rank 1. The group's mean is 10, the ranks' own are 6 and 12. Every cell below is computed.
";

fn main() -> ExitCode {
    let text = match report() {
        Ok(text) => text,
        Err(error) => {
            // Nobody is left to tell when this fails too.
            let _ = writeln!(io::stderr(), "error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// The whole table.
fn report() -> Result<String, Error> {
    let mut text = HEAD.to_owned();
    for (title, rows) in [
        ("Parameters and defaults", rows::parameters()?),
        ("Weight and bias", rows::affine()?),
        ("Which statistics normalize", rows::statistics()?),
        ("Initial values", rows::initial()?),
        ("Inputs and checkpoints", rows::checkpoints()?),
    ] {
        text += &format!("\n{title}\n{}", Table::new(["", "PyTorch", "MindSpore"], rows).render());
    }
    Ok(text)
}
