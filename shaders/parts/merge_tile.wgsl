// The end of a tile: its lanes merge, and its sums are written or finished.

#if FUSED
#import channel_coefficients
#endif

// Merges the entries of the lanes and writes the sums, or finishes a channel with one tile. For
// kernels that go on to the outputs the results stay in `entries`, one for each channel of the
// workgroup in order.
fn merge_over_lanes(own: array<Entry, SUMS>, walk: Walk, invocation: u32) {
    let channels = SUMS << params.tiles_per_workgroup_log2;
    let fours = max(params.lanes_per_tile / 4u, 1u);
    let sixteens = max(fours / 4u, 1u);
    let stride = fours * channels;
    let step = sixteens * channels;
    hold_fours(own, walk, stride, channels);
    workgroupBarrier();
    for (var task = invocation; task < step; task += 256u) {
        // Over the first of the entries that are merged, which no other task reads.
        entries[task] = merged_four(
            four(task, stride),
            four_if(fours > 1u, task + step, stride),
            four_if(fours > 2u, task + 2u * step, stride),
            four_if(fours > 2u, task + 3u * step, stride),
        );
    }
    workgroupBarrier();
    let first_channel = first_channel_of(walk);
    for (var task = invocation; task < channels; task += 256u) {
        let channel = first_channel + task;
        if (is_in_window(walk.tile, channel)) {
            let sums = result(merged(task, channels, sixteens));
#if FINISHES
            sums_of_rank = sums;
            finish(channel);
#if FUSED
            // Over the first of the entries that this task has merged.
            entries[task] = channel_coefficients;
#endif
#else
            partial[walk.tile * params.channels + channel] = sums;
#endif
        }
    }
#if FUSED
    // Each lane reads those of its channel.
    workgroupBarrier();
#endif
}
