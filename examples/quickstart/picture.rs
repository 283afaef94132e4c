//! A picture of rows of photos with headings and captions, as a PNG file.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use ab_glyph::{Font, FontRef, ScaleFont, point};

// In pixels.
const MARGIN: usize = 48;
/// Side of a photo.
const PHOTO: usize = 224;
const GAP: usize = 24;
/// The bar of a photo's mean color.
const BAR: usize = 10;
/// A row with its heading, captions and the gap to the next one.
const ROW: usize = 372;
const BLACK: [u8; 3] = [28, 30, 34];
const GREY: [u8; 3] = [98, 104, 112];

/// A photo, and its caption.
pub struct Panel {
    /// (3, H, W), from 0 to 255.
    pub values: Vec<f32>,
    pub width: usize,
    pub caption: [String; 2],
}

pub struct Row {
    pub heading: &'static str,
    pub about: &'static str,
    pub panels: Vec<Panel>,
}

struct Sheet {
    width: usize,
    pixels: Vec<[u8; 3]>,
    font: FontRef<'static>,
}

/// Draws the rows, and writes them to a file.
pub fn write(rows: &[Row], file: &Path) -> Result<(), Box<dyn Error>> {
    let columns = rows.iter().map(|row| row.panels.len()).max().unwrap_or(0).max(3);
    let [width, height] = [2 * MARGIN + columns * (PHOTO + GAP) - GAP, MARGIN + rows.len() * ROW];
    let font = FontRef::try_from_slice(include_bytes!("../data/fonts/Roboto-Regular.ttf"))?;
    let mut sheet = Sheet { width, pixels: vec![[255; 3]; width * height], font };
    for (index, row) in rows.iter().enumerate() {
        let top = MARGIN + index * ROW;
        sheet.text([MARGIN, top], 24.0, BLACK, row.heading);
        sheet.text([MARGIN, top + 30], 16.0, GREY, row.about);
        for (column, panel) in row.panels.iter().enumerate() {
            sheet.panel([MARGIN + column * (PHOTO + GAP), top + 60], panel);
        }
    }
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = BufWriter::new(File::create(file)?);
    let mut encoder = png::Encoder::new(file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(sheet.pixels.as_flattened())?;
    Ok(())
}

impl Sheet {
    fn panel(&mut self, [left, top]: [usize; 2], panel: &Panel) {
        let plane = panel.values.len() / 3;
        let [width, height] = [panel.width, plane / panel.width];
        // Fits the longer side, each pixel the nearest of the photo.
        let longest = width.max(height);
        for y in 0..PHOTO * height / longest {
            for x in 0..PHOTO * width / longest {
                let at = y * longest / PHOTO * width + x * longest / PHOTO;
                let color = [0, 1, 2].map(|channel| panel.values[channel * plane + at] as u8);
                self.pixels[(top + y) * self.width + left + x] = color;
            }
        }
        let mean = |channel: &[f32]| (channel.iter().sum::<f32>() / plane as f32) as u8;
        let mut means = panel.values.chunks_exact(plane).map(mean);
        let mean_color = [0; 3].map(|_| means.next().unwrap_or_default());
        for y in top + PHOTO + 4..top + PHOTO + 4 + BAR {
            self.pixels[y * self.width + left..][..PHOTO].fill(mean_color);
        }
        for (line, caption) in panel.caption.iter().enumerate() {
            let below = top + PHOTO + BAR + 10 + 20 * line;
            self.text([left, below], 15.0, GREY, caption);
        }
    }

    /// Writes with the upper left corner of the line at a place.
    fn text(&mut self, [left, top]: [usize; 2], size: f32, color: [u8; 3], text: &str) {
        let font = self.font.clone();
        let scaled = font.as_scaled(size);
        let mut pen = point(left as f32, (top as f32 + scaled.ascent()).round());
        for letter in text.chars() {
            let id = scaled.glyph_id(letter);
            let glyph = id.with_scale_and_position(size, pen);
            pen.x += scaled.h_advance(id);
            let Some(outline) = scaled.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            outline.draw(|x, y, coverage| {
                let [x, y] = [corner.x as usize + x as usize, corner.y as usize + y as usize];
                let Some(pixel) = self.pixels.get_mut(y * self.width + x) else { return };
                for (below, above) in pixel.iter_mut().zip(color) {
                    let mixed = f32::from(*below) * (1.0 - coverage) + f32::from(above) * coverage;
                    *below = mixed as u8;
                }
            });
        }
    }
}
