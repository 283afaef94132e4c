//! Owns the command line: what `cargo test` and nextest ask of a test binary without the built-in
//! harness.

/// The one test that this binary is, by the name that listings show and filters match.
pub const NAME: &str = "conformance";

/// What the caller wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Print the listing.
    List(String),
    /// Run everything.
    Run,
    /// A filter leaves this test out.
    FilteredOut,
}

/// Options of the built-in harness that are followed by a value of their own.
const WITH_VALUE: [&str; 6] =
    ["--test-threads", "--format", "--color", "--logfile", "-Z", "--shuffle-seed"];

/// Reads the arguments after the program's name.
pub fn request(args: impl IntoIterator<Item = String>) -> Request {
    let mut args = args.into_iter();
    let (mut list, mut only_ignored, mut exact) = (false, false, false);
    let (mut filters, mut skips) = (Vec::new(), Vec::new());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--list" => list = true,
            "--ignored" => only_ignored = true,
            "--exact" => exact = true,
            "--skip" => skips.extend(args.next()),
            option if WITH_VALUE.contains(&option) => drop(args.next()),
            option if option.starts_with("--skip=") => {
                skips.push(option["--skip=".len()..].to_owned())
            }
            option if option.starts_with('-') => {}
            filter => filters.push(filter.to_owned()),
        }
    }
    let matches =
        |filter: &String| if exact { filter == NAME } else { NAME.contains(filter.as_str()) };
    // This test is not marked as ignored, so a caller that asks for the ignored ones alone does not
    // mean it.
    let wanted = !only_ignored
        && (filters.is_empty() || filters.iter().any(matches))
        && !skips.iter().any(matches);
    match (list, wanted) {
        (true, true) => Request::List(format!("{NAME}: test\n")),
        (true, false) => Request::List(String::new()),
        (false, true) => Request::Run,
        (false, false) => Request::FilteredOut,
    }
}
