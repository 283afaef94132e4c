//! The tensors of padded samples, with their lengths.

use syncbn::Layout;

use super::Reader;
use crate::padded::Padded;
use crate::scenario::RankTensor;

impl Reader<'_> {
    /// The tensors of padded samples, with their lengths.
    pub(super) fn padded(
        &self,
        k: usize,
        [inputs, grad_outputs]: [&[RankTensor]; 2],
        residuals: Option<&[RankTensor]>,
    ) -> Result<Vec<Padded>, String> {
        let ranks = self.ranks.iter().zip(inputs).zip(grad_outputs).enumerate();
        let padded = ranks.map(|(member, ((rank, x), grad_output))| {
            let lengths = self.store.counts(&format!("s{k}.r{rank}.lengths"))?;
            let time = match x.layout {
                Layout::ChannelsFirst => x.dims.get(2),
                Layout::ChannelsLast => x.dims.get(1).filter(|_| x.dims.len() > 2),
            };
            let lengths: Option<Vec<u32>> =
                lengths.iter().map(|&length| u32::try_from(length).ok()).collect();
            let fits = |lengths: &Vec<u32>| {
                let is_inside = |length: &u32| time.is_some_and(|&time| *length as usize <= time);
                lengths.len() == x.dims[0] && lengths.iter().all(is_inside)
            };
            let is_like_x = |other: &RankTensor| other.dims == x.dims;
            let of_member = residuals.map(|residuals| &residuals[member]);
            let lengths = lengths
                .filter(fits)
                .filter(|_| is_like_x(grad_output) && of_member.is_none_or(is_like_x));
            let Some(lengths) = lengths else {
                let what = "lengths, dy and z do not fit x";
                return Err(self.store.wrong(&format!("s{k}.r{rank}: {what}")));
            };
            Ok(Padded {
                x: x.clone(),
                grad_output: grad_output.clone(),
                residual: residuals.map(|residuals| residuals[member].clone()),
                lengths,
            })
        });
        padded.collect()
    }
}
