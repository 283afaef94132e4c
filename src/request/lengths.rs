//! The forms in which a call takes the lengths of padded samples: a list for one rank, or a list
//! of lists.

mod sealed {
    pub trait Sealed {}
}

/// The lengths of padded samples: a list with one length per sample for one rank, or a list with
/// one such list per rank.
///
/// These are `&[3, 0, 5]`, `&vec` and a slice for one rank; `[&a, &b]`, `&[vec, …]` and a
/// `&Vec<Vec<u32>>` for several. Only this crate implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no list of lengths",
    label = "give `&[3, 0, 5]` for one rank, `[&a[..], &b[..]]` or `&vec_of_vecs` for several"
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
    [] &[Vec<u32>], lists => lists.to_vec();
    [const R: usize] &[Vec<u32>; R], lists => lists.to_vec();
    [] &Vec<Vec<u32>>, lists => lists.clone();
    [] Vec<Vec<u32>>, lists => lists;
}
