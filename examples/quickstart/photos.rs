//! PNG files of one size as one batch (N, 3, H, W) of pixel values from 0 to 255.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};

pub struct Photos {
    pub names: Vec<String>,
    pub width: usize,
    pub height: usize,
    /// (N, 3, H, W).
    values: Vec<f32>,
}

impl Photos {
    /// The RGB photos of a folder, sorted by name.
    pub fn load(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let about = |path: &Path, what: &dyn Error| format!("{}: {what}", path.display());
        let entries = folder.read_dir().map_err(|error| about(folder, &error))?;
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>();
        let mut paths = paths.map_err(|error| about(folder, &error))?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "png"));
        paths.sort();
        let mut photos = Self { names: Vec::new(), width: 0, height: 0, values: Vec::new() };
        for path in &paths {
            photos.add(path).map_err(|error| about(path, &*error))?;
        }
        if paths.is_empty() {
            return Err(format!("no file NAME.png in {}", folder.display()).into());
        }
        Ok(photos)
    }

    fn add(&mut self, path: &Path) -> Result<(), Box<dyn Error>> {
        let mut reader = png::Decoder::new(BufReader::new(File::open(path)?)).read_info()?;
        let mut pixels = vec![0; reader.output_buffer_size().ok_or("the photo is too large")?];
        let info = reader.next_frame(&mut pixels)?;
        let form = (info.color_type, info.bit_depth);
        if form != (png::ColorType::Rgb, png::BitDepth::Eight) {
            return Err(format!("{form:?} is not RGB of 8 bits").into());
        }
        let [width, height] = [info.width as usize, info.height as usize];
        if self.names.is_empty() {
            [self.width, self.height] = [width, height];
        } else if [width, height] != [self.width, self.height] {
            let first = format!("{} of {}x{}", self.names[0], self.width, self.height);
            return Err(format!("it is {width}x{height}, unlike {first}").into());
        }
        for channel in 0..3 {
            self.values.extend(pixels.chunks_exact(3).map(|pixel| f32::from(pixel[channel])));
        }
        self.names.push(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        Ok(())
    }

    /// (N, 3, H, W) of some photos.
    pub fn dims(&self, photos: &Range<usize>) -> [usize; 4] {
        [photos.len(), 3, self.height, self.width]
    }

    /// The values of some photos.
    pub fn values(&self, photos: &Range<usize>) -> &[f32] {
        let size = 3 * self.height * self.width;
        &self.values[photos.start * size..photos.end * size]
    }

    /// The photos of each rank, in order: as many each as possible, none on the last ranks where
    /// ranks are more.
    pub fn shards(&self, ranks: usize) -> Vec<Range<usize>> {
        let count = self.names.len();
        let start = |rank: usize| rank * (count / ranks) + rank.min(count % ranks);
        (0..ranks).map(|rank| start(rank)..start(rank + 1)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn photos(count: usize) -> Photos {
        Photos { names: vec![String::new(); count], width: 0, height: 0, values: Vec::new() }
    }

    #[test]
    fn every_photo_is_in_exactly_one_shard_and_the_first_are_larger() {
        for count in 1..20 {
            for ranks in 1..9 {
                let shards = photos(count).shards(ranks);
                let all: Vec<usize> = shards.iter().cloned().flatten().collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>(), "{count} over {ranks}");
                let sizes: Vec<usize> = shards.iter().map(Range::len).collect();
                assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes[0] - sizes[ranks - 1] <= 1);
            }
        }
    }

    #[test]
    fn a_folder_is_one_batch_and_a_photo_of_another_size_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, [width, height]: [u32; 2]| {
            let file = File::create(folder.path().join(name)).expect("a file");
            let mut encoder = png::Encoder::new(file, width, height);
            encoder.set_color(png::ColorType::Rgb);
            let pixels: Vec<u8> = (0..3 * width * height).map(|i| i as u8).collect();
            encoder.write_header().and_then(|mut png| png.write_image_data(&pixels)).expect("PNG");
        };
        assert!(Photos::load(folder.path()).is_err_and(|error| error.to_string().contains("png")));
        write("b.png", [2, 1]);
        write("a.png", [2, 1]);
        let photos = Photos::load(folder.path()).expect("photos");
        assert_eq!(photos.names, ["a", "b"]);
        assert_eq!(photos.dims(&(0..2)), [2, 3, 1, 2]);
        assert_eq!(photos.values(&(1..2)), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        write("c.png", [4, 5]);
        let error = Photos::load(folder.path()).err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.ends_with("it is 4x5, unlike a of 2x1")));
    }
}
