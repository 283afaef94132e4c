//! The check of subgroups. A workgroup must consist of whole subgroups of one size, in which
//! neighbouring numbers are neighbours.
//!
//! The kernels that merge lanes by subgroup shuffles number an invocation by subgroup_id ·
//! subgroup_size + subgroup_invocation_id, and take 4k, 4k + 1, 4k + 2 and 4k + 3 for neighbours.
//! So every number must be there once, and a shuffle over a distance of 1, 2 or 3 must reach the
//! neighbours.

use super::Defect;
use crate::shaders::WORKGROUP_SIZE;

/// Workgroups that answer: a number that went on counting in the second would be found.
pub(super) const WORKGROUPS: usize = 2;
const INVOCATIONS: usize = WORKGROUP_SIZE as usize;
/// Words of one invocation: number, subgroup_size, subgroup_invocation_id, local_invocation_index,
/// and four components for each of three distances.
const WORDS: usize = 16;
pub(super) const ANSWER_WORDS: usize = WORKGROUPS * INVOCATIONS * WORDS;
/// Component k of an invocation's values is its number plus k times this.
const COMPONENT_STEP: u32 = 256;
/// Lanes that merge by shuffles.
const SMALLEST_SIZE: u32 = 4;

/// The size of all subgroups, if they may be used.
pub(super) fn size(answer: &[u32]) -> Result<u32, Defect> {
    let invocations = || answer.chunks_exact(WORDS);
    let smallest = invocations().map(|words| words[1]).min().unwrap_or(0);
    let largest = invocations().map(|words| words[1]).max().unwrap_or(0);
    if smallest != largest || smallest < SMALLEST_SIZE {
        return Err(Defect::SubgroupSizes { smallest, largest });
    }
    for (workgroup, words) in answer.chunks_exact(INVOCATIONS * WORDS).enumerate() {
        check_numbers(workgroup, words)?;
    }
    invocations().try_for_each(check_neighbours)?;
    Ok(smallest)
}

/// Whether the numbers of a workgroup are 0 to 255. There are 256 of them: where one comes twice,
/// another is missing.
fn check_numbers(workgroup: usize, answer: &[u32]) -> Result<(), Defect> {
    let mut is_there = [false; INVOCATIONS];
    for words in answer.chunks_exact(WORDS) {
        if let Some(is_there) = is_there.get_mut(words[0] as usize) {
            *is_there = true;
        }
    }
    match is_there.iter().position(|is_there| !is_there) {
        Some(missing) => Err(Defect::SubgroupNumbers { workgroup, missing: missing as u32 }),
        None => Ok(()),
    }
}

fn check_neighbours(words: &[u32]) -> Result<(), Defect> {
    let number = words[0];
    for (exchanged, distance) in words[4..].chunks_exact(4).zip(1..) {
        let whose =
            |component: usize| exchanged[component].wrapping_sub(COMPONENT_STEP * component as u32);
        let found = std::array::from_fn(whose);
        let expected = number ^ distance;
        if found != [expected; 4] {
            return Err(Defect::SubgroupNeighbours { number, distance, found, expected });
        }
    }
    Ok(())
}
