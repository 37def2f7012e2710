// Explains one image and text and writes the map over the image: node explain.js HOST:PORT IMAGE TEXT [OVERLAY.png]
//
// TLS and token from the environment: M2IB_TLS_CA (a PEM file) and M2IB_TOKEN; M2IB_MODEL where the server has several. A
// DICOM file is sent as it is: strip the patient's identifiers before, as the Python client does.
'use strict';

const fs = require('node:fs');
const { Client, M2IBError, rows, toOriginal } = require('./m2ib.js');

async function main(address, file, text, overlay) {
  const { M2IB_TLS_CA: authority, M2IB_TOKEN: token, M2IB_MODEL: model } = process.env;
  const client = new Client(address, { rootCertificate: authority && fs.readFileSync(authority), token });
  try {
    const outputs = overlay ? ['OUTPUT_OVERLAY'] : [];
    const explanation = await client.explain(fs.readFileSync(file), text, { ...(model && { model }), outputs });
    const grid = rows(explanation.image.gridBits); // bits per patch, comparable between images
    const bits = Math.max(...grid.flat());
    const row = grid.findIndex((line) => line.includes(bits));
    const [x, y] = toOriginal(explanation.image.gridToOriginal, grid[row].indexOf(bits) + 0.5, row + 0.5);
    console.log(`similarity ${explanation.similarity.toFixed(3)}`);
    console.log(`brightest patch: ${bits.toFixed(3)} bits around pixel (${x.toFixed(0)}, ${y.toFixed(0)})`);
    for (const word of explanation.text.words) console.log(`${word.bits.toFixed(3)} bits  ${word.text}`);
    if (overlay) fs.writeFileSync(overlay, explanation.image.overlayPng);
  } catch (error) {
    if (!(error instanceof M2IBError)) throw error;
    console.error(`${error.code} ${error.reason}: ${error.message} (request ${error.requestId})`);
    process.exitCode = 1;
  } finally {
    client.close();
  }
}

const [address, file, text, overlay] = process.argv.slice(2);
if (text === undefined) {
  console.error('usage: node explain.js HOST:PORT IMAGE TEXT [OVERLAY.png]');
  process.exitCode = 2;
} else {
  main(address, file, text, overlay);
}
