//! The order of merging: how ranks are grouped into runs changes no bit.

use proptest::collection::vec;
use proptest::prelude::*;

use syncbn::low_level::tree::{Node, cover, merge_all, merge_nodes, merge_run};
use syncbn::stats::Moments;

use super::batch::{Batch, batches, in_place, merge, same_bits, whole};
use super::merge::partition_equals_whole;
use super::{Outcome, check};

/// What every holder of a contiguous run of ranks sends, in the opposite order.
fn nodes_of_runs<T: Clone>(
    leaves: &[T],
    cuts: &[usize],
    merge: impl Fn(&mut T, &T),
) -> Vec<Node<T>> {
    let mut ends: Vec<usize> =
        cuts.iter().map(|&cut| cut.min(leaves.len())).chain([leaves.len()]).collect();
    ends.sort_unstable();
    let starts: Vec<usize> = std::iter::once(0).chain(ends.iter().copied()).collect();
    let runs = starts.iter().zip(&ends).rev();
    let run = |start: usize, end| merge_run(start as u64, leaves[start..end].to_vec(), &merge);
    runs.flat_map(|(&start, &end)| run(start, end)).collect()
}

#[test]
fn the_result_is_the_same_bits_however_ranks_are_grouped_into_runs() {
    check((batches(), vec(0usize..13, 0..6)), |(batch, cuts)| {
        let local = batch.local();
        let merge = in_place(merge);
        let direct = merge_all(local.clone(), &merge).unwrap();
        let grouped = merge_nodes(nodes_of_runs(&local, &cuts, &merge), &merge).unwrap();
        prop_assert!(same_bits(&direct, &grouped), "{direct:?}, in runs {grouped:?}");
        Ok(())
    });
}

#[test]
fn grouping_into_runs_changes_no_parenthesis() {
    let written = in_place(|a: &String, b: &String| format!("({a}{b})"));
    check((1usize..70, vec(0usize..70, 0..8)), |(ranks, cuts)| {
        let leaves: Vec<String> = (0..ranks).map(|rank| format!(" {rank} ")).collect();
        let direct = merge_all(leaves.clone(), &written);
        prop_assert_eq!(merge_nodes(nodes_of_runs(&leaves, &cuts, &written), &written), direct);
        Ok(())
    });
}

#[test]
fn ranks_appended_empty_or_left_out_change_no_bit() {
    check((batches(), 0usize..9), |(batch, empty)| {
        let local = batch.local();
        let direct = whole(&local);
        let appended: Vec<_> = local.iter().copied().chain(vec![Moments::EMPTY; empty]).collect();
        prop_assert!(same_bits(&whole(&appended), &direct));
        // An empty rank that sends nothing counts as one that sends the identity.
        let present = local.iter().enumerate().filter(|(_, stats)| stats.count > 0);
        let nodes =
            present.map(|(rank, &value)| Node { level: 0, index: rank as u64, value }).collect();
        let merged = merge_nodes(nodes, in_place(merge)).unwrap_or(Moments::EMPTY);
        prop_assert!(same_bits(&merged, &direct));
        Ok(())
    });
}

#[test]
fn empty_ranks_in_between_stay_within_the_bound() {
    // They move the others to other places of the tree, so that only the bound of the larger tree
    // holds.
    check((batches(), vec(0usize..300, 1..9)), |(batch, at)| {
        let mut cuts = batch.cuts.clone();
        cuts.extend(at.iter().flat_map(|&cut| [cut, cut]));
        partition_equals_whole(&Batch { cuts, ..batch }, merge)
    });
}

/// The aligned nodes of a cover must follow each other without gap, and no two of them may be
/// siblings.
fn is_maximal_cover(start: u64, len: u64, nodes: &[(u32, u64)]) -> Outcome {
    let mut at = u128::from(start);
    for &(level, index) in nodes {
        prop_assert_eq!(u128::from(index) << level, at, "a gap or an overlap");
        at += 1u128 << level;
    }
    prop_assert_eq!(at, u128::from(start) + u128::from(len));
    let siblings = |pair: &[(u32, u64)]| {
        pair[0].0 == pair[1].0 && pair[0].1.is_multiple_of(2) && pair[1].1 == pair[0].1 + 1
    };
    prop_assert!(!nodes.windows(2).any(siblings), "two siblings are not maximal");
    Ok(())
}

#[test]
fn a_cover_is_made_of_maximal_aligned_nodes() {
    // Small runs first: a cover that is not maximal has no end of nodes in the large ones.
    let is_cover = |(start, len)| is_maximal_cover(start, len, &cover(start, len));
    check((0u64..40, 0u64..40), is_cover);
    check((0..=u64::MAX / 2, 0..=u64::MAX / 2), is_cover);
    is_maximal_cover(0, u64::MAX, &cover(0, u64::MAX)).unwrap();
    assert!(is_maximal_cover(0, 2, &[(0, 0), (0, 1)]).is_err());
    assert!(is_maximal_cover(0, 3, &[(1, 0)]).is_err());
}

#[test]
fn a_tree_without_a_leaf_has_no_value() {
    assert_eq!(merge_all([], in_place(merge)), None);
    assert_eq!(merge_nodes(vec![], in_place(merge)), None);
    assert_eq!(merge_run(5, [], in_place(merge)), vec![]);
}
