// Photos of the page or of the visitor, as pixels of one size, one below the other.

export const PHOTO_SIZE = 224;
const NAMES = ["astronaut", "coffee", "hubble", "rocket"];
const MOST = 4;

/** Draws pictures, each cropped to its centre square, and gives the pixels of all. */
function pixels(pictures) {
  const size = PHOTO_SIZE;
  const canvas = new OffscreenCanvas(size, size * pictures.length);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  pictures.forEach((picture, i) => {
    const side = Math.min(picture.width, picture.height);
    const [left, top] = [(picture.width - side) / 2, (picture.height - side) / 2];
    context.drawImage(picture, left, top, side, side, 0, i * size, size, size);
  });
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

// As the files say: no color management, so that every browser sees the same numbers.
const decode = (blob) => createImageBitmap(blob, { colorSpaceConversion: "none" });

/** The photos that come with the page. */
export async function loadPhotos() {
  const load = async (name) => {
    const answer = await fetch(`photos/${name}.png`);
    if (!answer.ok) throw new Error(`photos/${name}.png: ${answer.status}`);
    return decode(await answer.blob());
  };
  return pixels(await Promise.all(NAMES.map(load)));
}

/** Up to four files of the visitor. */
export async function loadFiles(files) {
  const images = files.filter((file) => file.type.startsWith("image/")).slice(0, MOST);
  if (!images.length) throw new Error("none of them is a picture");
  return pixels(await Promise.all(images.map(decode)));
}
