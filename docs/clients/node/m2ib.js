// Owns the calls of an M2IB server from Node: channel, deadline, retries, errors with their reasons, grids as numbers.
//
// Loads the protos when it starts, so nothing is generated. Copy this folder and the repository's proto/ to use it.
'use strict';

const crypto = require('node:crypto');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const MEBIBYTE = 1024 * 1024;
const MAX_MESSAGE_BYTES = 64 * MEBIBYTE; // the server's own default
const CHUNK_BYTES = 256 * 1024;
const SERVICE = 'm2ib.v1.AttributionService';
const PROTOS = process.env.M2IB_PROTOS || path.join(__dirname, '..', '..', '..', 'proto');

const LOADED = protoLoader.loadSync(
  ['m2ib/v1/attribution.proto', 'google/rpc/details.proto', 'grpc/health/v1/health.proto'],
  {
    includeDirs: [PROTOS, path.join(__dirname, 'protos')],
    longs: String, // a seed has 64 bits, a number of JavaScript 53
    enums: String,
    defaults: true,
    oneofs: true,
  },
);
const { m2ib, grpc: standard } = grpc.loadPackageDefinition(LOADED);

// Both statuses come with grpc-retry-pushback-ms, which the library obeys: it waits as long as the server says, and not
// at all where the server says that waiting is in vain. Answers depend on the request alone, so a repeated one is safe.
const SERVICE_CONFIG = {
  methodConfig: [
    {
      name: [{ service: SERVICE }],
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: '0.2s',
        maxBackoff: '5s',
        backoffMultiplier: 3,
        retryableStatusCodes: ['UNAVAILABLE', 'RESOURCE_EXHAUSTED'],
      },
    },
  ],
  retryThrottling: { maxTokens: 10, tokenRatio: 0.5 },
};

/** A call that failed: `code` is the status's name, the rest what the server says of it. */
class M2IBError extends Error {
  constructor(failure) {
    super(failure.details);
    const details = readDetails(failure.metadata);
    this.code = grpc.status[failure.code];
    this.reason = details.ErrorInfo?.reason ?? ''; // stable: write your cases for it
    this.requestId = details.ErrorInfo?.metadata.request_id ?? ''; // the server's log has more under it
    this.violations = (details.BadRequest?.fieldViolations ?? []).map((at) => ({
      field: at.field,
      description: at.description,
    }));
    this.resource = details.ResourceInfo?.description ?? '';
    this.retryAfterSeconds = details.RetryInfo ? seconds(details.RetryInfo.retryDelay) : null;
  }
}

class Client {
  /**
   * @param {string} address HOST:PORT.
   * @param {object} options `rootCertificate`, `clientKey`, `clientCertificate` (PEM, Buffers): TLS, mutual with all
   *   three; without the first the channel is plaintext, which only this machine should see. `token`: sent with every
   *   call, over TLS only. `timeoutSeconds`: of each call.
   */
  constructor(address, { rootCertificate, clientKey, clientCertificate, token, timeoutSeconds = 60 } = {}) {
    if (token && !rootCertificate) throw new Error('a token goes over TLS only: give a rootCertificate');
    const credentials = rootCertificate
      ? grpc.credentials.createSsl(rootCertificate, clientKey ?? null, clientCertificate ?? null)
      : grpc.credentials.createInsecure();
    const options = {
      'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
      'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
      'grpc.per_rpc_retry_buffer_size': MAX_MESSAGE_BYTES, // a request above it is never repeated
      'grpc.retry_buffer_size': 4 * MAX_MESSAGE_BYTES,
      'grpc.keepalive_time_ms': 30_000, // a server cuts off who asks more often than every 10 s
      'grpc.service_config': JSON.stringify(SERVICE_CONFIG),
      'grpc.enable_http_proxy': 0, // images of patients go through no proxy that the environment names
    };
    this.token = token;
    this.timeoutSeconds = timeoutSeconds;
    this.stub = new m2ib.v1.AttributionService(address, credentials, options);
    this.healthStub = new standard.health.v1.Health(address, credentials, options);
  }

  /** Returns the loaded models: name, version, grid, defaults, limits. */
  async models() {
    return (await this.#unary('ListModels', {})).models;
  }

  /**
   * Explains one pair. `image` is a Buffer (PNG, JPEG, TIFF, WebP, DICOM) or what `upload` returned; `request` has any
   * other field of ExplainRequest: { model, settings: { effort: 'EFFORT_SPECIFIC' }, outputs: ['OUTPUT_OVERLAY'] }.
   */
  async explain(image, text, request = {}) {
    const message = { ...request, image: source(image), text };
    return (await this.#unary('Explain', message, affinity(image))).explanation;
  }

  /** Explains one pair and calls `onProgress` with every step that is done; leaving early cancels it on the server. */
  async explainStream(image, text, request = {}, onProgress = () => {}) {
    const message = { request: { ...request, image: source(image), text } };
    const call = this.stub.ExplainStream(message, this.#metadata(affinity(image)), this.#deadline());
    try {
      for await (const event of call) {
        if (event.event === 'explanation') return event.explanation;
        onProgress(event.progress);
      }
    } catch (failure) {
      throw new M2IBError(failure);
    } finally {
      call.cancel();
    }
    throw new Error('the stream ended without an explanation');
  }

  /** Explains many pairs, each { id, image, text, ... }; returns a Map from id to an explanation or an M2IBError. */
  explainBatch(pairs) {
    return new Promise((resolve, reject) => {
      const answers = new Map();
      const call = this.stub.ExplainBatch(this.#metadata(), this.#deadline());
      call.on('error', (failure) => reject(new M2IBError(failure)));
      call.on('end', () => resolve(answers));
      call.on('data', (answer) => {
        answers.set(answer.id, answer.outcome === 'explanation' ? answer.explanation : pairError(answer.status));
      });
      for (const { id, image, text, ...request } of pairs) {
        call.write({ id, request: { ...request, image: source(image), text } });
      }
      call.end();
    });
  }

  /** Sends an image once, for many calls; returns what takes its place. The server lets go of it after a while. */
  upload(image) {
    return new Promise((resolve, reject) => {
      const sha256 = digest(image);
      const done = (failure, answer) => {
        if (failure) reject(new M2IBError(failure));
        else resolve({ handle: answer.handle, sha256 });
      };
      const call = this.stub.UploadImage(this.#metadata(sha256), this.#deadline(), done);
      call.write({ header: { sizeBytes: image.length, sha256 } });
      for (let start = 0; start < image.length; start += CHUNK_BYTES) {
        call.write({ chunk: image.subarray(start, start + CHUNK_BYTES) });
      }
      call.end();
    });
  }

  /** Returns the cosine similarities, a row for each image with a column for each text. */
  async score(images, texts, request = {}) {
    const message = { ...request, images: images.map(source), texts };
    return rows(await this.#unary('Score', message).then((answer) => answer.similarities));
  }

  /** Returns 'SERVING' or 'NOT_SERVING'; needs no token. */
  health(service = '') {
    return new Promise((resolve, reject) => {
      this.healthStub.Check({ service }, this.#deadline(), (failure, answer) =>
        failure ? reject(new M2IBError(failure)) : resolve(answer.status),
      );
    });
  }

  close() {
    this.stub.close();
    this.healthStub.close();
  }

  #unary(method, message, key) {
    return new Promise((resolve, reject) => {
      this.stub[method](message, this.#metadata(key), this.#deadline(), (failure, answer) =>
        failure ? reject(new M2IBError(failure)) : resolve(answer),
      );
    });
  }

  #metadata(key) {
    const metadata = new grpc.Metadata();
    if (this.token) metadata.set('authorization', `Bearer ${this.token}`);
    if (key) metadata.set('x-affinity', key); // lets a proxy keep calls about one image on one server
    return metadata;
  }

  #deadline() {
    return { deadline: Date.now() + this.timeoutSeconds * 1000 };
  }
}

/** Returns a FloatTensor of two dimensions as arrays of rows. */
function rows(tensor) {
  const [height, width] = tensor.shape;
  const value = (row, column) => tensor.data.readFloatLE(4 * (row * width + column));
  return Array.from({ length: height }, (_, row) => Array.from({ length: width }, (_, column) => value(row, column)));
}

/** Returns where a point of the grid (x in columns, y in rows) lies on the original image, in pixels. */
function toOriginal(affine, x, y) {
  return [affine.xx * x + affine.xy * y + affine.x0, affine.yx * x + affine.yy * y + affine.y0];
}

function source(image) {
  return Buffer.isBuffer(image) ? { encoded: image } : { handle: image.handle };
}

function affinity(image) {
  return Buffer.isBuffer(image) ? digest(image) : image.sha256;
}

function digest(bytes) {
  return crypto.createHash('sha256').update(bytes).digest('hex');
}

function seconds(duration) {
  return Number(duration.seconds) + duration.nanos / 1e9;
}

/** Returns the details of a failure by the names of their messages; what this file does not know is left out. */
function readDetails(metadata) {
  const [packed] = metadata ? metadata.get('grpc-status-details-bin') : [];
  if (!packed) return {};
  return unpack(LOADED['google.rpc.Status'].deserialize(packed).details);
}

function unpack(details) {
  const known = details.map(({ type_url: url, value }) => [url.split('/').pop(), value]);
  const read = known
    .filter(([name]) => name in LOADED)
    .map(([name, value]) => [name.replace('google.rpc.', ''), LOADED[name].deserialize(value)]);
  return Object.fromEntries(read);
}

/** A pair of a batch fails as a call of its own would. */
function pairError(status) {
  const packed = LOADED['google.rpc.Status'].serialize(status);
  const metadata = new grpc.Metadata();
  metadata.set('grpc-status-details-bin', Buffer.from(packed));
  return new M2IBError({ code: status.code, details: status.message, metadata });
}

module.exports = { Client, M2IBError, rows, toOriginal };
