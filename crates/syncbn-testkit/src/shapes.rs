//! Shapes at which a walk over an activation may go wrong: numbered lists of ranks.

/// Takes the dimensions of every rank, and a number that tells this list from all others.
pub type Check<'a> = &'a dyn Fn(&[&[usize]], u64);

/// Matrices.
pub fn one_position_per_sample(check: Check<'_>) {
    check(&[&[2, 3], &[7, 3]], 1);
    check(&[&[5, 1], &[1, 1]], 2);
    check(&[&[4099, 3], &[17, 3]], 3);
    check(&[&[33, 257], &[0, 257], &[1, 257]], 4);
}

pub fn sizes_that_no_workgroup_divides(check: Check<'_>) {
    check(&[&[3, 5, 7], &[1, 5, 7]], 5);
    check(&[&[3, 2, 3, 5, 7], &[2, 2, 3, 5, 7]], 6);
    check(&[&[1, 7, 13, 19], &[5, 7, 13, 19]], 7);
    check(&[&[9, 1, 4097], &[1, 1, 4095]], 8);
}

pub fn tiles_side_by_side(check: Check<'_>) {
    for inner in [2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 39, 40] {
        check(&[&[61, 19, inner], &[130, 19, inner]], 100 + inner as u64);
    }
    // More values than one tile of few lanes holds.
    check(&[&[1031, 37, 3], &[5, 37, 3]], 9);
}

pub fn several_tiles_per_channel(check: Check<'_>) {
    check(&[&[2, 3, 50_001], &[1, 3, 4096]], 10);
    check(&[&[1, 1, 8191], &[1, 1, 1]], 11);
    check(&[&[3, 2, 317, 211], &[2, 2, 317, 211]], 12);
    check(&[&[40_009, 2], &[3, 2]], 13);
}

/// More than 65,535 channels, samples, and runs of one channel.
pub fn more_than_one_dispatch_dimension(check: Check<'_>) {
    check(&[&[3, 70_001], &[1, 70_001]], 14);
    check(&[&[1, 70_001, 5]], 15);
    check(&[&[70_003, 1, 3], &[2, 1, 3]], 16);
    check(&[&[257, 257, 3]], 17);
}
