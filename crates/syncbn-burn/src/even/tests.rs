use burn::data::dataloader::split::split_dataloader;
use burn::data::dataset::InMemDataset;

use super::*;

struct Numbers;

impl Batcher<usize, Vec<usize>> for Numbers {
    fn batch(&self, items: Vec<usize>, _: &Device) -> Vec<usize> {
        items
    }
}

fn loader(samples: usize, batch_size: usize) -> EvenLoader<usize, Vec<usize>> {
    let samples = InMemDataset::new((0..samples).collect());
    EvenLoader::new(samples, Numbers, batch_size, &Device::default())
}

/// The steps of an epoch, part by part.
fn epoch(parts: &[Arc<dyn DataLoader<WorkerBatch<Vec<usize>>>>]) -> Vec<Vec<Vec<usize>>> {
    let steps = |part: &Arc<dyn DataLoader<WorkerBatch<Vec<usize>>>>| {
        part.iter().map(|step| step.unwrap().batch).collect()
    };
    parts.iter().map(steps).collect()
}

fn parts(
    loader: EvenLoader<usize, Vec<usize>>,
    workers: usize,
) -> Vec<Arc<dyn DataLoader<WorkerBatch<Vec<usize>>>>> {
    split_dataloader(Arc::new(loader), &vec![Device::default(); workers])
}

#[test]
fn every_worker_has_every_step_and_all_samples_of_a_step_are_dealt_once() {
    for workers in 1..=4 {
        for samples in [1, 2, 7, 23, 24, 25, 61] {
            let whole = epoch(&parts(loader(samples, 12), 1)).remove(0);
            assert_eq!(whole.concat(), (0..samples).collect::<Vec<_>>());
            let dealt = epoch(&parts(loader(samples, 12), workers));
            for (step, expected) in whole.iter().enumerate() {
                let of_all: Vec<_> = dealt.iter().flat_map(|part| part[step].clone()).collect();
                assert_eq!(&of_all, expected);
            }
            assert!(dealt.iter().all(|part| part.len() == whole.len()));
        }
    }
}

#[test]
fn full_batches_are_cut_evenly() {
    for workers in [2, 3, 4] {
        for part in epoch(&parts(loader(1438, 12), workers)) {
            let full = &part[..1438 / 12];
            assert!(full.iter().all(|step| step.len() == 12 / workers), "{part:?}");
        }
    }
}

#[test]
fn parts_are_shuffled_alike_and_anew_in_each_epoch() {
    let parts = parts(loader(30, 6).with_shuffle(5), 3);
    let joined = |dealt: Vec<Vec<Vec<usize>>>| -> Vec<usize> {
        (0..5)
            .flat_map(|step| {
                dealt.iter().flat_map(move |part| part[step].clone()).collect::<Vec<_>>()
            })
            .collect()
    };
    let [first, second] = [(); 2].map(|()| joined(epoch(&parts)));
    for order in [&first, &second] {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..30).collect::<Vec<_>>());
        assert_ne!(order, &sorted);
    }
    assert_ne!(first, second);
}

#[test]
fn progress_ends_at_the_samples_of_the_part() {
    for part in parts(loader(25, 12), 2) {
        let mut steps = part.iter();
        assert_eq!(steps.progress().items_processed, 0);
        let samples: usize = steps.by_ref().map(|step| step.unwrap().samples).sum();
        let progress = steps.progress();
        assert!(progress.is_completed());
        assert_eq!(progress.items_total, samples);
    }
}
