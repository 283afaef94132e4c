//! The forms in which a call takes the lengths of padded samples: a list for one rank, or a list
//! of lists.

mod sealed {
    pub trait Sealed {}
}

/// The lengths of padded samples, each a `u32`: a list with one length per sample for one rank, or
/// a list with one such list per rank.
///
/// These are `&[3, 0, 5]`, `&vec` and a slice for one rank; `[&a, &b]` of vectors, of slices, or of
/// arrays of one length, `[vec, …]` and `&vec_of_vecs` for several. Only this crate implements it.
///
/// ```
/// use syncbn::{Device, Forward};
///
/// let host = Device::host();
/// let x = host.zeros(&[2, 1, 4])?;
/// let a = vec![3, 0];
/// let b = vec![4, 4];
/// let one = [Forward::of(&x).lengths(&[3, 0]), Forward::of(&x).lengths(&a)];
/// let two = [
///     Forward::of([&x, &x]).lengths([&a, &b]),
///     Forward::of([&x, &x]).lengths([&a[..], &b[..]]),
///     Forward::of([&x, &x]).lengths([a.clone(), b.clone()]),
///     Forward::of([&x, &x]).lengths(&vec![a, b]),
/// ];
/// # assert_eq!((one.len(), two.len()), (2, 4));
/// # Ok::<(), syncbn::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no list of lengths, which are u32",
    label = "give `&[3, 0, 5]` of u32 for one rank, `[&a[..], &b[..]]` or `&vec_of_vecs` for \
        several"
)]
pub trait Lengths: sealed::Sealed {
    /// One list per rank.
    #[doc(hidden)]
    fn lists(self) -> Vec<Vec<u32>>;
}

macro_rules! lengths {
    ($([$($generic:tt)*] $type:ty, $lengths:ident => $lists:expr;)*) => {$(
        impl<$($generic)*> sealed::Sealed for $type {}

        impl<$($generic)*> Lengths for $type {
            fn lists(self) -> Vec<Vec<u32>> {
                let $lengths = self;
                $lists
            }
        }
    )*};
}

lengths! {
    [] &[u32], one => vec![one.to_vec()];
    [const N: usize] &[u32; N], one => vec![one.to_vec()];
    [] &Vec<u32>, one => vec![one.clone()];
    [] &[&[u32]], lists => lists.iter().map(|of_rank| of_rank.to_vec()).collect();
    [const R: usize] &[&[u32]; R], lists => lists.iter().map(|of_rank| of_rank.to_vec()).collect();
    [const R: usize] [&[u32]; R], lists => lists.iter().map(|of_rank| of_rank.to_vec()).collect();
    [const N: usize, const R: usize] [&[u32; N]; R], lists => {
        lists.iter().map(|of_rank| of_rank.to_vec()).collect()
    };
    [const R: usize] [&Vec<u32>; R], lists => lists.into_iter().cloned().collect();
    [const R: usize] [Vec<u32>; R], lists => lists.into();
    [] &[&Vec<u32>], lists => lists.iter().copied().cloned().collect();
    [] &[Vec<u32>], lists => lists.to_vec();
    [const R: usize] &[Vec<u32>; R], lists => lists.to_vec();
    [] &Vec<Vec<u32>>, lists => lists.clone();
    [] Vec<Vec<u32>>, lists => lists;
}
