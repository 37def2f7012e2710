// Makes every call of docs/clients/node/m2ib.js to the server at argv[2] with the image at argv[3], and prints what
// came as JSON, for tests/e2e/test_node.py to judge.
'use strict';

const fs = require('node:fs');
const { Client, M2IBError, rows } = require('../../docs/clients/node/m2ib.js');

const SETTINGS = { steps: 2, samples: 2 };
const TEXT = 'a cat';

async function refused(call) {
  try {
    await call();
  } catch (error) {
    if (error instanceof M2IBError) return { ...error, message: error.message };
    throw error;
  }
  throw new Error('the server refused nothing');
}

function shown(explanation) {
  return {
    similarity: explanation.similarity,
    grid: rows(explanation.image.gridBits),
    words: explanation.text.words.map((word) => word.text),
    overlay: explanation.image.overlayPng.subarray(1, 4).toString('latin1'),
    imageSha256: explanation.provenance.imageSha256,
    seed: explanation.provenance.settings.seed,
  };
}

async function main(address, image) {
  const client = new Client(address);
  const hasty = new Client(address, { timeoutSeconds: 0.001 });
  const request = { model: 'tiny', settings: { ...SETTINGS, seed: '18446744073709551615' }, outputs: ['OUTPUT_OVERLAY'] };
  const steps = [];
  const uploaded = await client.upload(image);
  const batch = await client.explainBatch([
    { id: 'good', image, text: TEXT, ...request },
    { id: 'bad', image, text: '', ...request },
    { id: 'named', image: uploaded, text: TEXT, ...request },
  ]);
  const seen = {
    health: await client.health(),
    healthOfService: await client.health('m2ib.v1.AttributionService'),
    models: (await client.models()).map((model) => model.name),
    explain: shown(await client.explain(image, TEXT, request)),
    handle: shown(await client.explain(uploaded, TEXT, request)),
    stream: shown(await client.explainStream(image, TEXT, request, (progress) => steps.push(progress))),
    steps: steps.map(({ side, step, steps: of }) => [side, step, of]),
    batch: { good: shown(batch.get('good')), named: shown(batch.get('named')), bad: batch.get('bad').reason },
    score: await client.score([image, uploaded], [TEXT, 'a dog'], { model: 'tiny' }),
    emptyText: await refused(() => client.explain(image, '', request)),
    manySteps: await refused(() => client.explain(image, TEXT, { model: 'tiny', settings: { steps: 100000 } })),
    noModel: await refused(() => client.explain(image, TEXT, { model: 'nobody' })),
    noHandle: await refused(() => client.explain({ handle: 'gone', sha256: '' }, TEXT, request)),
    late: await refused(() => hasty.explain(image, TEXT, request)),
  };
  client.close();
  hasty.close();
  console.log(JSON.stringify(seen));
}

main(process.argv[2], fs.readFileSync(process.argv[3])).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
