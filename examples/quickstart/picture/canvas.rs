//! A white sheet to draw on: filled rectangles, pictures and text. It knows pixels and glyphs,
//! nothing of the layer.

use ab_glyph::{Font, FontRef, InvalidFont, PxScale, ScaleFont, point};
use image::{Rgb, RgbImage, imageops};

const REGULAR: &[u8] = include_bytes!("../../data/fonts/Roboto-Regular.ttf");
const MEDIUM: &[u8] = include_bytes!("../../data/fonts/Roboto-Medium.ttf");

/// How a piece of text looks.
#[derive(Clone, Copy, Debug)]
pub struct TextStyle {
    /// Height of a line's glyphs, ascent to descent, in pixels.
    pub size: f32,
    pub color: [u8; 3],
    pub bold: bool,
}

/// The sheet and the two weights of the one typeface on it.
pub struct Canvas {
    image: RgbImage,
    regular: FontRef<'static>,
    medium: FontRef<'static>,
}

impl Canvas {
    pub fn new(width: u32, height: u32, background: [u8; 3]) -> Result<Self, InvalidFont> {
        Ok(Self {
            image: RgbImage::from_pixel(width, height, Rgb(background)),
            regular: FontRef::try_from_slice(REGULAR)?,
            medium: FontRef::try_from_slice(MEDIUM)?,
        })
    }

    pub fn into_image(self) -> RgbImage {
        self.image
    }

    /// Fills a rectangle; what lies outside the sheet is left out.
    pub fn fill(&mut self, (x, y): (u32, u32), (width, height): (u32, u32), color: [u8; 3]) {
        for row in y..y.saturating_add(height).min(self.image.height()) {
            for column in x..x.saturating_add(width).min(self.image.width()) {
                self.image.put_pixel(column, row, Rgb(color));
            }
        }
    }

    pub fn paste(&mut self, (x, y): (u32, u32), picture: &RgbImage) {
        imageops::replace(&mut self.image, picture, i64::from(x), i64::from(y));
    }

    /// Width of `text` in pixels.
    pub fn text_width(&self, text: &str, style: TextStyle) -> f32 {
        let font = self.font(style).as_scaled(PxScale::from(style.size));
        text.chars().map(|letter| font.h_advance(font.glyph_id(letter))).sum()
    }

    /// Draws `text` with the top of its line at `y` and its left edge at `x`.
    pub fn text(&mut self, (x, y): (f32, f32), text: &str, style: TextStyle) {
        let font = self.font(style).clone();
        let scaled = font.as_scaled(PxScale::from(style.size));
        let baseline = (y + scaled.ascent()).round();
        let mut pen = x;
        for letter in text.chars() {
            let id = scaled.glyph_id(letter);
            let glyph = id.with_scale_and_position(style.size, point(pen, baseline));
            pen += scaled.h_advance(id);
            let Some(outline) = scaled.outline_glyph(glyph) else {
                continue; // a space has no outline
            };
            let corner = outline.px_bounds().min;
            outline.draw(|column, row, coverage| {
                self.blend(corner.x + column as f32, corner.y + row as f32, style.color, coverage);
            });
        }
    }

    /// Draws `text` with its right edge at `x`.
    pub fn text_right(&mut self, (x, y): (f32, f32), text: &str, style: TextStyle) {
        let left = x - self.text_width(text, style);
        self.text((left, y), text, style);
    }

    /// `text` broken at spaces into lines no wider than `width` pixels; a single longer word keeps
    /// its line.
    pub fn wrap(&self, text: &str, width: f32, style: TextStyle) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if self.text_width(&format!("{line} {word}"), style) <= width => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines
    }

    /// `text` cut with an ellipsis so that it is at most `width` pixels wide.
    pub fn shorten(&self, text: &str, width: f32, style: TextStyle) -> String {
        if self.text_width(text, style) <= width {
            return text.to_owned();
        }
        let mut kept: String = text.to_owned();
        while kept.pop().is_some() {
            let shortened = format!("{}…", kept.trim_end());
            if self.text_width(&shortened, style) <= width {
                return shortened;
            }
        }
        String::new()
    }

    fn font(&self, style: TextStyle) -> &FontRef<'static> {
        if style.bold { &self.medium } else { &self.regular }
    }

    fn blend(&mut self, x: f32, y: f32, color: [u8; 3], coverage: f32) {
        if x < 0.0 || y < 0.0 {
            return;
        }
        if let Some(pixel) = self.image.get_pixel_mut_checked(x as u32, y as u32) {
            for (below, above) in pixel.0.iter_mut().zip(color) {
                let mixed = f32::from(*below) * (1.0 - coverage) + f32::from(above) * coverage;
                *below = mixed.round() as u8;
            }
        }
    }
}
