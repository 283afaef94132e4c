//! Writes the values that the page must show, computed natively on the host (CPU). These are the
//! synchronized and the local values of the photos, with the page's first cut, as f32 in
//! little-endian order.
//!
//! `expected PHOTOS FOLDER` reads the PNG files of PHOTOS, in the order of their names, and writes
//! `synchronized.f32` and `local.f32` to FOLDER. The cut is given to the page's test by its file
//! `ends.json`.

use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use syncbn::Device;
use syncbn_web::photos::{Picture, normalize};

/// Ranks of the page, and the part of the rows that its first rank has, in hundredths.
const RANKS: usize = 4;
const SHARE: usize = 25;

/// Appends the pixels of an RGB file, with opacity; their width.
fn append(file: &Path, rgba: &mut Vec<u8>) -> Result<usize, Box<dyn Error>> {
    let mut decoder = png::Decoder::new(BufReader::new(File::open(file)?));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().ok_or("a picture beyond memory")?];
    let info = reader.next_frame(&mut pixels)?;
    if info.color_type != png::ColorType::Rgb {
        return Err(format!("{}: {:?}, expected Rgb", file.display(), info.color_type).into());
    }
    for pixel in pixels[..info.buffer_size()].chunks(3) {
        rgba.extend_from_slice(pixel);
        rgba.push(u8::MAX);
    }
    Ok(info.width as usize)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [photos, folder] = &arguments[..] else {
        return Err("expected two folders: that of the photos, and where to write".into());
    };
    let mut files: Vec<_> = Path::new(photos)
        .read_dir()?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "png"));
    files.sort();
    let mut rgba = Vec::new();
    let mut width = 0;
    for file in &files {
        width = append(file, &mut rgba)?;
    }
    let picture = Picture::from_rgba(&rgba, width)?;
    let first = picture.rows() * SHARE / 100;
    let rest = (picture.rows() - first) / (RANKS - 1);
    let ends: Vec<usize> = (0..RANKS - 1).map(|i| first + i * rest).collect();
    let devices = vec![Device::host(); RANKS];
    let normalized = pollster::block_on(normalize(&devices, &picture, &ends))?;

    let folder = Path::new(folder);
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    std::fs::write(folder.join("synchronized.f32"), bytes(&normalized.synchronized))?;
    std::fs::write(folder.join("local.f32"), bytes(&normalized.local))?;
    std::fs::write(folder.join("ends.json"), serde_json::to_string(&ends)?)?;
    Ok(())
}
