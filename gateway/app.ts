// The whole HTTP surface: every middleware and every route, in order. A factory, so that tests run it without a server
// (app.request()) and on any clock; main.ts puts it on a port.
import { type Context, Hono } from 'hono'
import { cors } from 'hono/cors'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { createGateway, type Gateway, type GatewayOptions, type RequestEnv } from './context.ts'
import { ApiError, toApiError } from './errors.ts'
import { auth } from './middleware/auth.ts'
import { requestId } from './middleware/request.ts'
import { chat } from './routes/chat.ts'
import { completions } from './routes/completions.ts'
import { health, live, metrics, ready, version } from './routes/health.ts'
import { model, models } from './routes/models.ts'
import { streams } from './routes/streams.ts'
import { detokenize, tokenize } from './routes/tokenize.ts'

export function createApp(options: GatewayOptions): Hono<RequestEnv> {
  return createRoutes(createGateway(options))
}

export function createRoutes(gateway: Gateway): Hono<RequestEnv> {
  const { rootPath, allowedOrigins } = gateway.config
  const root = new Hono<RequestEnv>()
  root.use(requestId(gateway))
  if (allowedOrigins.length > 0) root.use(cors({ origin: allowedOrigins, exposeHeaders: ['x-request-id'] }))
  root.use(auth(gateway))

  const app = rootPath === '' ? root : root.basePath(rootPath)
  app.post('/v1/chat/completions', (c) => chat(c, gateway))
  app.post('/v1/completions', (c) => completions(c, gateway))
  app.get('/v1/streams/:id', (c) => streams(c, gateway))
  app.get('/v1/models', (c) => models(c, gateway))
  app.get('/v1/models/:id{.+}', (c) => model(c, gateway))
  app.post('/tokenize', (c) => tokenize(c, gateway))
  app.post('/detokenize', (c) => detokenize(c, gateway))
  app.get('/health', (c) => health(c, gateway))
  app.get('/live', live)
  app.get('/ready', (c) => ready(c, gateway))
  app.get('/metrics', (c) => metrics(c, gateway))
  app.get('/version', version)
  app.on(['GET', 'POST'], '/ping', (c) => health(c, gateway))

  refuseOtherMethods(root)
  root.notFound((c) => {
    const path = c.req.path.slice(0, 100)
    return render(c, new ApiError(404, 'not_found', null, `There is no route ${c.req.method} ${path}.`))
  })
  root.onError((thrown, c) => {
    const error = toApiError(thrown)
    // A 503 without a cause is said on purpose (loading, draining, queue full) and is no fault of this process.
    const isFault = error.status === 500 || error.cause !== undefined
    if (isFault) gateway.log.error({ err: error.cause ?? error, id: c.var.requestId }, error.message)
    return render(c, error)
  })
  return root
}

/** Known paths answer 405 and name their methods, where the router alone would say 404. */
function refuseOtherMethods(root: Hono<RequestEnv>): void {
  const routes = root.routes.filter((route) => route.method !== 'ALL')
  for (const [path, same] of Map.groupBy(routes, (route) => route.path)) {
    const allow = same.map((route) => route.method).join(', ')
    root.all(path, (c) => {
      throw new ApiError(405, 'method_not_allowed', null, `${c.req.path} takes ${allow}, not ${c.req.method}.`, {
        allow,
      })
    })
  }
}

function render(c: Context<RequestEnv>, error: ApiError): Response {
  const headers = { 'content-type': 'application/json', ...error.headers }
  return c.body(error.envelope(), error.status as ContentfulStatusCode, headers)
}
