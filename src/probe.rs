//! Questions to a driver at the opening of a device, and the judgement of its answers.
//!
//! Owns the [`Question`]s (small kernels with their inputs) and [`judge`], a function from answers
//! to the [`FastPaths`] that are taken and the [`Findings`] that are reported. The module knows no
//! device: `gpu::probe` runs the kernels.

mod arithmetic;
mod cases;
mod findings;
mod halves;
mod question;
mod rounding;
mod subgroups;

pub use arithmetic::Arithmetic;
pub use findings::{Defect, Findings};
pub use question::{INPUTS, Params, Question};

use crate::fast_paths::FastPaths;

/// The words that a question's kernel wrote, or the reason that there are none.
pub type Answer = Result<Vec<u32>, String>;

/// The fast paths of `asked` at which the driver is sound, and the other findings.
///
/// `asked` are the fast paths that the caller wants and whose feature the device has. A path that
/// needs proof is taken only if its question was answered well. Others are taken as asked. A
/// question without an entry counts as unanswered.
pub fn judge(asked: FastPaths, answers: &[(Question, Answer)]) -> (FastPaths, Findings) {
    let mut defects = Vec::new();
    let words = |question| words_of(question, answers);
    let subgroup_size = match asked.subgroups {
        true => noted(&mut defects, words(Question::Subgroups).and_then(subgroups::size)),
        false => None,
    };
    let keeps_f16 = asked.native_f16
        && noted(&mut defects, words(Question::NativeF16).and_then(halves::check)).is_some();
    let rounds_f16 = match asked.native_f16 {
        true => noted(&mut defects, words(Question::Rounding)).map(rounding::is_to_nearest_even),
        false => None,
    };
    let arithmetic = noted(&mut defects, words(Question::Arithmetic)).map(Arithmetic::of);
    defects.extend(arithmetic.and_then(Arithmetic::defect));
    let forward = noted(&mut defects, words(Question::Forward));
    let backward = noted(&mut defects, words(Question::Backward));
    let signs_agree = forward
        .zip(backward)
        .map(|(y, gradients)| noted(&mut defects, cases::check_signs(y, gradients)).is_some());
    let paths =
        asked.without_proof().with_subgroups(subgroup_size.is_some()).with_native_f16(keeps_f16);
    (paths, Findings { subgroup_size, rounds_f16, arithmetic, signs_agree, defects })
}

/// The value of a good result. A defect goes to the list.
fn noted<T>(defects: &mut Vec<Defect>, result: Result<T, Defect>) -> Option<T> {
    result.map_err(|defect| defects.push(defect)).ok()
}

/// The words of an answer, as many as the question has.
fn words_of(question: Question, answers: &[(Question, Answer)]) -> Result<&[u32], Defect> {
    let no_answer = |message: String| Defect::NoAnswer { question: question.name(), message };
    let found = answers.iter().find(|(answered, _)| *answered == question);
    let words = match found {
        Some((_, Ok(words))) => words,
        Some((_, Err(message))) => return Err(no_answer(message.clone())),
        None => return Err(no_answer("it was not asked".to_owned())),
    };
    let found = words.len();
    let expected = question.answer_words();
    if found != expected {
        return Err(no_answer(format!("{found} words, expected {expected}")));
    }
    Ok(words)
}

#[cfg(test)]
mod tests;
