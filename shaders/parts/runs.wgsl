// Of which channel an address is: `run` neighbours in memory are of one channel.

#import params

struct Run {
    channel: u32,
    left: u32,            // elements from the address to the end of its channel there
}

fn run_at(address: u32) -> Run {
    if (address < params.run_end) {
        return Run(params.run_channel, params.run_end - address);
    }
    let behind = address - params.run_end;
    let passed = behind / params.run;
    return Run(
        (params.run_channel + 1u + passed) % params.channels,
        (passed + 1u) * params.run - behind,
    );
}
