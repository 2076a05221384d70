# The image of `pagestream engine`, its kernels built, no compiler left. From the root of the repository:
#   docker build -f infra/engine.Dockerfile -t pagestream-engine .
#   docker run -v /path/to/models:/models:ro pagestream-engine /models/NAME --redis redis://HOST:6379
FROM node:24-bookworm-slim AS kernels
RUN apt-get update && apt-get install -y --no-install-recommends g++ tini && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY package.json ./
COPY engine/kernels engine/kernels
COPY engine/native engine/native
COPY scripts/build.ts scripts/
COPY scripts/kernels scripts/kernels
RUN node scripts/build.ts

FROM node:24-bookworm-slim AS packages
WORKDIR /app
COPY package.json package-lock.json ./
# As in gateway.Dockerfile.
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund && rm -rf node_modules/node-linux-*

FROM node:24-bookworm-slim
# An engine whose step hangs kills itself, and the kernel spares process 1 of a container from its own SIGKILL.
COPY --from=kernels /usr/bin/tini-static /usr/bin/tini
WORKDIR /app
COPY --from=packages /app/node_modules node_modules
COPY --from=kernels /app/build/libpagestream_cpu.so /app/build/stamp build/
COPY package.json ./
COPY queue queue
COPY engine engine
COPY gateway/config.ts gateway/
COPY scripts/build.ts scripts/cli.ts scripts/progress.ts scripts/
COPY scripts/cli scripts/cli
COPY scripts/kernels scripts/kernels
COPY scripts/demo/model scripts/demo/model
# Downloaded models: the one folder that is written.
ENV HOME=/cache XDG_CACHE_HOME=/cache
RUN install -d -o 1000 -g 0 -m 775 /cache
USER 1000
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m CMD ["node", "-e", "fetch('http://127.0.0.1:8001/ready').then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["tini", "--", "node", "scripts/cli.ts", "engine", "--metrics-port", "8001"]
