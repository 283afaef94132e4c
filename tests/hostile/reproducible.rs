//! Sums of integers under the hostile compiler: they have the bits of the host, whose code it does
//! not see.

use syncbn::{DType, Device, low_level::Epilogue};

use crate::common::reproducible::resident::{assert_same, on_device, on_host};
use crate::common::reproducible::{FORMS, Whole, any_cut, findings, hosts, uncut, whole};
use crate::common::{Kind, Placement};

#[test]
fn sums_of_integers_have_the_bits_of_the_host() {
    let epilogues = [Epilogue::NONE, Epilogue::RELU, Epilogue::ADD_RELU];
    let dtypes = [DType::F32, DType::F16, DType::BF16];
    for form in 0..FORMS.len() {
        let last = form / 2 % 2 == 1;
        let epilogue = epilogues[form % 3];
        let mask = form == 4;
        let of = Whole { mask, ..whole(form, last, epilogue) }.stored(dtypes[form / 3 % 3]);
        let expected = findings(&of, &uncut(&of), &hosts(1));
        let cut = any_cut(of.samples(), form as u64);
        let found = findings(&of, &cut, &Kind::Gpu.devices(cut.len()));
        found.assert_same(&expected, false, &format!("form {form}, {last}, {epilogue:?}"));
    }
}

#[test]
fn what_merges_on_one_gpu_has_the_bits_of_the_host() {
    for (form, last) in [(0, true), (3, false), (6, false), (8, true)] {
        let of = whole(form, last, Epilogue::RELU);
        let cut = any_cut(of.samples(), form as u64);
        let gpu = &Kind::Gpu.devices(1 + form)[form];
        let found = on_device(&of.config(), (&of, &cut), gpu, (true, 2));
        let expected = on_host(&of.config(), (&of, &cut), &Device::host(), (true, 2));
        assert_same(&found, &expected, false, &format!("form {form}, {last}"));
    }
}
