# The image of `pagestream gateway`: no compiler, no kernels, no model. From the root of the repository:
#   docker build -f infra/gateway.Dockerfile -t pagestream-gateway .
#   docker run -p 8000:8000 pagestream-gateway --redis redis://HOST:6379
FROM node:24-bookworm-slim AS packages
WORKDIR /app
COPY package.json package-lock.json ./
# Native packages bring built binaries, so no script of a package has to run. The Node among the optional dependencies
# is for machines without one.
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund && rm -rf node_modules/node-linux-*

FROM node:24-bookworm-slim
WORKDIR /app
COPY --from=packages /app/node_modules node_modules
COPY package.json ./
COPY queue queue
COPY gateway gateway
COPY engine/config.ts engine/
COPY scripts/cli.ts scripts/progress.ts scripts/
COPY scripts/cli scripts/cli
# A number, so that Kubernetes can see that it is not root; any other works as well, nothing is written.
USER 1000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["node", "-e", "fetch('http://127.0.0.1:8000/ready').then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "scripts/cli.ts", "gateway", "--host", "0.0.0.0", "--port", "8000"]
