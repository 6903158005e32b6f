// The page of an experiment without a trace has a video of mlflow.org's, which the policy of our page lets no browser ask
// for. With an empty one the UI leaves its place out, as where mlflow.org can't be reached, and no console has an error.
{
  const set = HTMLVideoElement.prototype.setAttribute;
  HTMLVideoElement.prototype.setAttribute = function (name, value) {
    set.call(this, name, name === "src" && String(value).startsWith("https://mlflow.org/") ? "data:," : value);
  };
}
