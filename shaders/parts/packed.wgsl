// A f64 in three words, as statistics lie on the device between forward and backward.

#import double

fn packed(a: Double) -> vec3<u32> {
    return vec3<u32>(a.sign | a.high, a.low, bitcast<u32>(a.exponent));
}

fn unpacked(a: vec3<u32>) -> Double {
    return Double(a.x & 0x80000000u, bitcast<i32>(a.z), a.x & 0x7fffffffu, a.y);
}
