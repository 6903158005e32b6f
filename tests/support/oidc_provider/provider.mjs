// An OpenID Connect provider as people run one: its own login page, PKCE wanted, claims at its user info endpoint,
// access tokens as JWTs. Arguments: port, the address of Headrace. POST /rotate: new keys from now on.
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import Provider from "oidc-provider";

const [port, headrace] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const groups = { ada: ["ml-team"], root: ["ml-admins", "ml-team"], eve: ["others"], trainer: ["ml-team"] };

const key = () => ({
  ...generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "jwk" }),
  ...{ kid: randomUUID(), use: "sig", alg: "RS256" },
});

const provider = () =>
  new Provider(issuer, {
    jwks: { keys: [key()] },
    cookies: { keys: [randomUUID()] },
    clients: [
      {
        client_id: "headrace",
        client_secret: "a secret: of % the client",
        redirect_uris: [`${headrace}/headrace/oidc/callback`],
        post_logout_redirect_uris: [`${headrace}/headrace/sign-in`],
      },
      {
        client_id: "trainer",
        client_secret: "of-a-machine",
        grant_types: ["client_credentials"],
        redirect_uris: [],
        response_types: [],
      },
    ],
    pkce: { required: () => true },
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name", "groups"] },
    findAccount: (context, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@example.org`, email_verified: true, groups: groups[id] ?? [] }),
    }),
    extraTokenClaims: (context, token) => ({ groups: groups[token.accountId ?? token.clientId] ?? [] }),
    features: {
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (context, resource) => ({
          scope: "",
          audience: resource === "https://mlflow.example.org" ? "mlflow-api" : resource,
          accessTokenFormat: "jwt",
        }),
      },
    },
  }).callback();

let answer = provider();
createServer((request, response) => {
  if (request.url === "/rotate") {
    answer = provider();
    response.end();
  } else {
    answer(request, response);
  }
}).listen(Number(port), "127.0.0.1");
