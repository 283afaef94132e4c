//! The one canonical binary tree over rank indices along which everything merges, pairwise.
//!
//! A node (level, index) covers the ranks `index << level .. (index + 1) << level`. The holder of a
//! contiguous run of ranks sends the maximal aligned nodes of that run. Merging nodes gives the
//! same bits for every distribution of ranks.

/// A node of the tree with the merged value of the ranks it covers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node<T> {
    /// Height above the leaves: the node covers `1 << level` ranks.
    pub level: u32,
    /// Position among the nodes of its level.
    pub index: u64,
    /// Merged value.
    pub value: T,
}

/// The maximal aligned nodes, as (level, index) from left to right, that cover the ranks `start ..
/// start + len`.
pub fn cover(start: u64, len: u64) -> Vec<(u32, u64)> {
    let end = start.saturating_add(len);
    let mut nodes = Vec::new();
    let mut at = start;
    while at < end {
        let aligned = if at == 0 { u64::BITS - 1 } else { at.trailing_zeros() };
        let fitting = (end - at).ilog2();
        let level = aligned.min(fitting);
        nodes.push((level, at >> level));
        at += 1 << level;
    }
    nodes
}

/// Merges `leaves`, the values of the ranks from `start` on, into the nodes of [`cover`]. As
/// everywhere here, `merge` merges the right value into the left one.
pub fn merge_run<T, I: ExactSizeIterator<Item = T>>(
    start: u64,
    leaves: impl IntoIterator<Item = T, IntoIter = I>,
    merge: impl Fn(&mut T, &T),
) -> Vec<Node<T>> {
    let mut leaves = leaves.into_iter();
    let nodes = cover(start, leaves.len() as u64).into_iter();
    let node = |(level, index)| {
        let value = merge_aligned(level, &mut leaves, &merge)?;
        Some(Node { level, index, value })
    };
    nodes.filter_map(node).collect()
}

/// The nodes of a run of ranks and of the run behind it, from left to right, as the nodes of one
/// run: siblings merge.
pub fn join<T>(
    left: Vec<Node<T>>,
    right: Vec<Node<T>>,
    merge: impl Fn(&mut T, &T),
) -> Vec<Node<T>> {
    let mut nodes = left;
    for mut node in right {
        // A right sibling completes its parent, which may be a right sibling too.
        while let Some(mut left) =
            nodes.pop_if(|left| left.level == node.level && left.index ^ 1 == node.index)
        {
            merge(&mut left.value, &node.value);
            node = Node { level: node.level + 1, index: node.index / 2, value: left.value };
        }
        nodes.push(node);
    }
    nodes
}

/// The value of the whole tree from nodes that cover each rank at most once. `None` without a node.
///
/// A missing rank or subtree counts as the identity: its sibling's value moves up unchanged.
pub fn merge_nodes<T>(mut nodes: Vec<Node<T>>, merge: impl Fn(&mut T, &T)) -> Option<T> {
    nodes.sort_by_key(|node| (node.level, node.index));
    while nodes.len() > 1 {
        // Raises the lowest level by one. Siblings merge left before right.
        let level = nodes[0].level;
        let split = nodes.partition_point(|node| node.level == level);
        let upper = nodes.split_off(split);
        let mut risen: Vec<Node<T>> = Vec::with_capacity(nodes.len());
        for node in nodes {
            match risen.last_mut() {
                Some(left) if left.index == node.index / 2 => merge(&mut left.value, &node.value),
                _ => {
                    risen.push(Node { level: level + 1, index: node.index / 2, value: node.value })
                }
            }
        }
        risen.extend(upper);
        risen.sort_by_key(|node| (node.level, node.index));
        nodes = risen;
    }
    nodes.pop().map(|node| node.value)
}

/// The value of the tree over all ranks, the leaves from 0 on; `None` without a leaf.
pub fn merge_all<T, I: ExactSizeIterator<Item = T>>(
    leaves: impl IntoIterator<Item = T, IntoIter = I>,
    merge: impl Fn(&mut T, &T),
) -> Option<T> {
    merge_nodes(merge_run(0, leaves, &merge), merge)
}

/// Merges the next 2^level leaves pairwise.
fn merge_aligned<T>(
    level: u32,
    leaves: &mut impl Iterator<Item = T>,
    merge: &impl Fn(&mut T, &T),
) -> Option<T> {
    let Some(below) = level.checked_sub(1) else { return leaves.next() };
    let mut left = merge_aligned(below, leaves, merge)?;
    merge(&mut left, &merge_aligned(below, leaves, merge)?);
    Some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(left: &mut String, right: &String) {
        *left = format!("({left}{right})");
    }

    #[test]
    fn five_ranks_merge_as_a_complete_tree_with_the_missing_leaves_left_out() {
        let leaves: Vec<String> = "abcde".chars().map(String::from).collect();
        assert_eq!(merge_all(leaves, written).as_deref(), Some("(((ab)(cd))e)"));
    }

    #[test]
    fn runs_joined_in_any_order_are_the_run_of_all() {
        let leaves: Vec<String> = ('a'..='z').map(String::from).collect();
        let run =
            |from: usize, to: usize| merge_run(from as u64, leaves[from..to].to_vec(), written);
        for (from, first, second, to) in
            [(0, 1, 2, 26), (3, 4, 9, 17), (0, 8, 16, 24), (5, 6, 7, 8), (7, 7, 20, 20)]
        {
            let all = run(from, to);
            let left =
                join(join(run(from, first), run(first, second), written), run(second, to), written);
            let right =
                join(run(from, first), join(run(first, second), run(second, to), written), written);
            assert_eq!((&left, &right), (&all, &all), "{from}, {first}, {second}, {to}");
        }
    }

    #[test]
    fn a_run_is_covered_by_its_maximal_aligned_nodes() {
        assert_eq!(cover(3, 6), [(0, 3), (2, 1), (0, 8)]);
        assert_eq!(cover(0, 0), []);
        assert_eq!(cover(0, 7), [(2, 0), (1, 2), (0, 6)]);
    }
}
