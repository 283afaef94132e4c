//! The picture: rows of photos with captions on one white sheet. It lays out what it is given and
//! computes nothing.

mod canvas;

use ab_glyph::InvalidFont;
use canvas::{Canvas, TextStyle};
use image::{RgbImage, imageops, imageops::FilterType};

/// A photo is drawn to fit a square of this many pixels.
const PANEL: u32 = 224;
/// More photos than this in a row make a sheet that no screen shows whole.
pub const MAX_COLUMNS: usize = 8;
/// Rows of text need this many panels' width, however few photos there are.
const MIN_COLUMNS: u32 = 3;

// All distances in pixels.
const MARGIN: u32 = 56;
const GAP: u32 = 24;
const ROW_GAP: u32 = 40;
const BAR: u32 = 10;
/// From one line of text to the next, as a multiple of its size.
const LEADING: f32 = 1.3;

const BACKGROUND: [u8; 3] = [255, 255, 255];
const INK: [u8; 3] = [28, 30, 34];
const MUTED: [u8; 3] = [98, 104, 112];
const RULE: [u8; 3] = [222, 225, 229];
/// The numbers of the red, green and blue channel: dark enough to read on white.
const CHANNEL_INK: [[u8; 3]; 3] = [[176, 42, 42], [28, 116, 58], [38, 84, 172]];

const TITLE: TextStyle = text(32.0, INK, true);
const LEAD: TextStyle = text(17.0, MUTED, false);
const HEADING: TextStyle = text(21.0, INK, true);
const BODY: TextStyle = text(16.0, MUTED, false);
const NAME: TextStyle = text(16.0, INK, true);
const CAPTION: TextStyle = text(15.0, MUTED, false);

const fn text(size: f32, color: [u8; 3], bold: bool) -> TextStyle {
    TextStyle { size, color, bold }
}

/// Everything on the sheet, top to bottom.
#[derive(Debug)]
pub struct Sheet {
    pub title: String,
    pub lead: String,
    pub rows: Vec<Row>,
    pub notes: Vec<String>,
}

/// One row of photos under a heading.
#[derive(Debug)]
pub struct Row {
    pub heading: String,
    pub explanation: String,
    pub panels: Vec<Panel>,
}

/// One photo, a bar in one colour under it, and its caption.
#[derive(Debug)]
pub struct Panel {
    pub image: RgbImage,
    pub bar: [u8; 3],
    /// The caption's first line: on the left a name, on the right where it is.
    pub label: Option<(String, String)>,
    pub lines: Vec<CaptionLine>,
}

/// One number for each of R, G and B.
#[derive(Debug)]
pub struct CaptionLine {
    pub name: &'static str,
    pub values: [String; 3],
}

impl Sheet {
    /// Draws the sheet.
    pub fn draw(&self) -> Result<RgbImage, InvalidFont> {
        let columns = self.rows.iter().map(|row| row.panels.len()).max();
        let columns = (columns.unwrap_or(0) as u32).max(MIN_COLUMNS);
        let width = 2 * MARGIN + columns * PANEL + (columns - 1) * GAP;

        // The same layout runs twice, first on an empty sheet to find the height.
        let mut measured = Canvas::new(width, 1, BACKGROUND)?;
        let height = self.draw_on(&mut measured, width);
        let mut canvas = Canvas::new(width, height, BACKGROUND)?;
        self.draw_on(&mut canvas, width);
        Ok(canvas.into_image())
    }

    /// Draws everything and returns the height used, in pixels.
    fn draw_on(&self, canvas: &mut Canvas, width: u32) -> u32 {
        let mut y = paragraph(canvas, MARGIN, width, &self.title, TITLE) + 6;
        y = paragraph(canvas, y, width, &self.lead, LEAD);
        for row in &self.rows {
            y += ROW_GAP;
            y = paragraph(canvas, y, width, &row.heading, HEADING) + 2;
            y = paragraph(canvas, y, width, &row.explanation, BODY) + 14;
            y = row.draw_panels(canvas, y);
        }
        y += ROW_GAP - GAP / 2;
        canvas.fill((MARGIN, y), (width - 2 * MARGIN, 1), RULE);
        y += GAP;
        for note in &self.notes {
            y = paragraph(canvas, y, width, note, BODY) + 4;
        }
        y + MARGIN - 4
    }
}

impl Row {
    /// Draws the panels side by side with their tops at `y`; returns where the longest caption
    /// ends.
    fn draw_panels(&self, canvas: &mut Canvas, y: u32) -> u32 {
        let pictures: Vec<RgbImage> = self.panels.iter().map(|p| fit(&p.image)).collect();
        let tallest = pictures.iter().map(RgbImage::height).max().unwrap_or(0);
        let mut end = y;
        for (index, (panel, picture)) in self.panels.iter().zip(&pictures).enumerate() {
            let x = MARGIN + index as u32 * (PANEL + GAP);
            canvas.paste((x, y), picture);
            let bar = y + tallest + 4;
            canvas.fill((x, bar), (PANEL, BAR), panel.bar);
            end = end.max(panel.draw_caption(canvas, (x, bar + BAR + 8)));
        }
        end
    }
}

impl Panel {
    /// Draws the caption with its upper left corner at (`x`, `y`); returns where it ends.
    fn draw_caption(&self, canvas: &mut Canvas, (x, mut y): (u32, u32)) -> u32 {
        let (left, right) = (x as f32, (x + PANEL) as f32);
        if let Some((name, place)) = &self.label {
            let room = PANEL as f32 - canvas.text_width(place, CAPTION) - 12.0;
            let name = canvas.shorten(name, room, NAME);
            canvas.text((left, y as f32), &name, NAME);
            canvas.text_right((right, y as f32), place, CAPTION);
            y += line_height(NAME);
        }
        for line in &self.lines {
            canvas.text((left, y as f32), line.name, CAPTION);
            // Right-aligned columns, the last at the panel's edge; 48 pixels hold "255.0" and
            // "−0.00".
            for (column, (value, color)) in line.values.iter().zip(CHANNEL_INK).enumerate() {
                let x = right - 48.0 * (2 - column) as f32;
                canvas.text_right((x, y as f32), value, TextStyle { color, ..CAPTION });
            }
            y += line_height(CAPTION);
        }
        y
    }
}

/// Draws `text` between the margins with its top at `y`; returns where it ends.
fn paragraph(canvas: &mut Canvas, mut y: u32, width: u32, text: &str, style: TextStyle) -> u32 {
    for line in canvas.wrap(text, (width - 2 * MARGIN) as f32, style) {
        canvas.text((MARGIN as f32, y as f32), &line, style);
        y += line_height(style);
    }
    y
}

fn line_height(style: TextStyle) -> u32 {
    (style.size * LEADING).round() as u32
}

/// The photo scaled to fit a panel, sides in proportion; small ones keep their hard pixel edges.
fn fit(photo: &RgbImage) -> RgbImage {
    let longest = photo.width().max(photo.height());
    if longest == PANEL {
        return photo.clone();
    }
    let scaled = |side: u32| {
        let exact = u64::from(side) * u64::from(PANEL) / u64::from(longest);
        exact.max(1) as u32
    };
    let filter = if longest < PANEL { FilterType::Nearest } else { FilterType::Triangle };
    imageops::resize(photo, scaled(photo.width()), scaled(photo.height()), filter)
}
