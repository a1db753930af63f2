# %% [markdown]
# # House prices: from a census table to honest numbers
#
# **You will learn**
# - to split a table before anything is learned from it, and what a leak looks like when you do not;
# - to fill gaps and encode categories so that training and test stay apart;
# - to ask three different questions about which columns matter, and why their answers differ.
#
# *About 30 minutes; the cells run for about one. One process: the ranks come in lesson 11.*

# %% tags=["parameters"]
preset: str = "quick"  # "smoke", "quick" or "full": how large the forests are
source: str = "auto"  # "auto", "real" or "synthetic" data
seed: int = 0  # for the models; the split never moves

# %%
import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.feature_selection import mutual_info_regression
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression
from sklearn.metrics import root_mean_squared_error as rmse

from course_lib import choose_preset
from course_lib.data import housing
from course_lib.plots import COLOURS, bars, figure, map_of_prices, show, thousands

preset = choose_preset(preset)

# %% [markdown]
# ## The table
#
# Each row is a **block group** of the 1990 census in California, a few streets with their people. The task is to predict
# the median value of its houses from where it lies and who lives there. `load` says where the data came from; if it
# had to make them up, it says so loudly, and every figure below carries a stamp.

# %%
houses = housing.load(source)
frame = houses.frame
frame.describe().T[["count", "min", "50%", "max"]]

# %% [markdown]
# One column stops short: `total_bedrooms` has gaps. And one column is missing from the summary because it holds words,
# `ocean_proximity`. We will have to make numbers of both. But first look at the data as a picture. **Where will the
# dear houses be?**

# %%
title = f"{len(frame):,} block groups of 1990, each with its median house value"
price = frame[housing.TARGET]
fig = map_of_prices(frame["longitude"], frame["latitude"], price, title, houses.origin)
show(fig, alt="Map of California's block groups coloured by price: highest at the coast")

# %% [markdown]
# Houses are dear along the coast, most of all near the big cities. No straight line in latitude or longitude
# describes that coast. Keep the picture in mind: it is the reason why linear
# regression will do badly below, and why lesson 11 gives its network the map in small pieces.
#
# ## The price that is not a price
#
# How are the prices themselves distributed? Look at the right end of the histogram.

# %%
top, capped = price.max(), (price == price.max()).sum()
title = f"{capped:,} block groups share one price: the cap of ${top:,.0f}"
axes = {"xlabel": "median house value (US dollars)", "ylabel": "block groups"}
fig, ax = figure(title, **axes, origin=houses.origin)
ax.hist(price, bins=100, color=COLOURS[0])
ax.xaxis.set_major_formatter(thousands())
show(
    fig,
    alt=f"Histogram of prices with a spike of {capped} block groups at the cap, {top:,.0f} dollars",
)

# %% [markdown]
# The census wrote every value above half a million as 500,001. These rows say "at least", not "exactly". A model can
# learn to predict the cap, but nobody learns from this table what a villa costs. We keep the rows and remember it when
# we read errors.
#
# ## Split first
#
# The test rows stand for the future: houses nobody has seen. Everything that is *learned*, be it a weight or a median,
# must come from the other rows. So the split comes before all else. **The simplest split takes the last fifth of the
# rows. What could be wrong with it?**

# %%
last_fifth = np.arange(len(frame)) >= len(frame) * 4 // 5
north = (frame["latitude"] > 37).rename("share north of latitude 37°")
both = pd.concat([price.rename("mean price (US dollars)"), north], axis=1)
both.groupby(np.where(last_fifth, "last fifth", "first four fifths")).mean().round(2)

# %% [markdown]
# The rows are sorted by county, so the last fifth is another part of California. We must shuffle. The shuffle has a
# seed of its own, 42, which no parameter of any lesson ever changes: a split that moves makes every comparison worthless.

# %%
order = np.random.RandomState(42).permutation(len(frame))
fifth = len(frame) // 5
test_rows, train_rows = order[:fifth], order[fifth:]
print(f"{len(train_rows):,} rows to learn from, {len(test_rows):,} to be judged by")

# %% [markdown]
# ## Fill the gaps
#
# The usual cure for a gap is the median of its column. **The median of which rows?**

# %%
bedrooms = frame["total_bedrooms"]
gaps = bedrooms.isna().sum()
print(f"{gaps} gaps. Median of all rows: {bedrooms.median():g}, of the training rows:", end=" ")
print(f"{bedrooms.iloc[train_rows].median():g}")
print(f"{bedrooms.iloc[test_rows].isna().sum()} of the gaps lie in the test rows")

# %% [markdown]
# Be honest: here it makes next to no difference. A median of thousands of rows hardly notices a fifth of them. (Did you
# expect the last line? In the real table and with this seed, *all* gaps fall into the test rows, so no model ever
# learns from a filled one. Chance does such things; look before you trust a split.) The rule holds all the same,
# because nobody tells you in advance when it will matter. Here is a case where it does. A popular
# feature for houses is *the mean price in the neighbourhood*. Divide the map into squares of 0.05 degrees (about
# 5 km) and average, once over all rows and once over the training rows. The error below is the **RMSE**, the root of
# the mean squared error: in dollars like the prices, and large errors weigh more. **Which version will look better?**


# %%
def price_nearby(rows: np.ndarray) -> pd.Series:
    square = (frame[["latitude", "longitude"]] / 0.05).round().astype(int)
    square = square["latitude"].astype(str) + " " + square["longitude"].astype(str)
    means = price.iloc[rows].groupby(square.iloc[rows]).mean()
    return square.map(means).fillna(price.iloc[rows].mean())


# %%
def error_with(feature: pd.Series) -> float:
    x = frame[["median_income", "housing_median_age"]].assign(nearby=feature)
    model = HistGradientBoostingRegressor(random_state=seed)
    model.fit(x.iloc[train_rows], price.iloc[train_rows])
    return rmse(price.iloc[test_rows], model.predict(x.iloc[test_rows]))


leaky, honest = error_with(price_nearby(order)), error_with(price_nearby(train_rows))
print(f"test RMSE: ${leaky:,.0f} with all rows, ${honest:,.0f} with the training rows only")

# %% [markdown]
# The first number is the better one, and it is a lie. In a square with few block groups, the mean of *all* rows holds
# much of the very price we are asked to predict: the answer has **leaked** into the question. In the real future it
# will not be there. The second number is honest, though its model is not yet the best: a training row still finds its
# own price in its square, and so the model trusts the feature too much. (A mean over the *other* rows would mend that.)
#
# ## Words into numbers, and numbers into better ones
#
# A category becomes one column a value, 0 or 1. Take the values from a fixed list, not from the rows at hand:
# `ISLAND` is so rare that a part of the table may hold none, and its column would vanish there.

# %%
frame["ocean_proximity"].value_counts().to_frame("block groups")

# %%
category = frame["ocean_proximity"].to_numpy()[:, None] == np.array(housing.OCEAN_PROXIMITY)
category = pd.DataFrame(category.astype(float), columns=housing.OCEAN_PROXIMITY)
table = housing.features(frame, fit_on=train_rows)
assert table["total_bedrooms"].iloc[bedrooms.isna().argmax()] == bedrooms.iloc[train_rows].median()
print(*table.columns, sep=", ")

# %% [markdown]
# `housing.features` fills the gaps with the training median and adds five columns. A block with 2,000 rooms is not rich, it is large:
# rooms *per household* say more, and so do bedrooms per room and people per household. The last two are the map
# turned by 45°, since the coast runs from north-west to south-east.
#
# ## Which columns matter?
#
# Three common answers. **Correlation** asks how well a straight line in this one column would do. **Mutual information**
# (in *nats*; 0 is nothing) asks how much this one column tells about the price, along whatever curve. **Permutation
# importance** asks a trained model: how much worse do your predictions get if I shuffle this column? We ask that on
# **validation rows**: a fifth of the training rows that the model does not learn from, so that the test rows stay
# unseen. **What will the three say about latitude and longitude?**

# %%
valid_rows, fit_rows = train_rows[: len(train_rows) // 5], train_rows[len(train_rows) // 5 :]
model = HistGradientBoostingRegressor(random_state=seed)
model.fit(table.iloc[fit_rows], price.iloc[fit_rows])
repeats = {"smoke": 1, "quick": 5, "full": 10}[preset]
options = {"n_repeats": repeats, "scoring": "neg_root_mean_squared_error", "random_state": seed}
shuffled = permutation_importance(model, table.iloc[valid_rows], price.iloc[valid_rows], **options)

# %%
x_train, y_train = table.iloc[train_rows], price.iloc[train_rows]
relevance = pd.DataFrame(index=table.columns)
relevance["correlation (absolute, 0 to 1)"] = x_train.corrwith(y_train).abs()
some = slice(None, 4000)  # mutual information looks at nearest neighbours: slow for many rows
information = mutual_info_regression(x_train[some], y_train[some], random_state=seed)
relevance["mutual information (nats)"] = information
relevance["RMSE added (1,000 dollars)"] = shuffled.importances_mean / 1000

# %% [markdown]
# Which column gains most from company, that is, which one climbs highest from the first answer to the third? It gets
# into the title. The four columns of place are orange.

# %%
rank = relevance.rank(ascending=False).astype(int)
line, _, shuffle = rank
climber = (rank[line] - rank[shuffle]).idxmax()
title = f"{climber}: number {rank[line][climber]} of {len(rank)} for a straight line, "
title += f"number {rank[shuffle][climber]} for a model"
fig, axes = figure(title, ncols=3, ylabel="column", size=(9, 4.2), origin=houses.origin)
place = relevance.index.isin(["longitude", "latitude", "north_east", "north_west"])
for ax, question in zip(axes, relevance, strict=True):
    ax.barh(relevance.index, relevance[question], color=np.where(place, COLOURS[1], COLOURS[0]))
    ax.set_xlabel(question)
    ax.invert_yaxis()
    ax.tick_params(labelleft=ax is axes[0])
show(fig, alt=f"Three bar charts of the columns' relevance. {title}")

# %% [markdown]
# They do not agree, and each is right about its own question. The longitude has next to no straight-line relation
# with the price, yet the right curve through it would tell a great deal. The column in the title says little by itself,
# but a model that sees all columns *together* leans on it. And a short bar on the right does not prove a column
# useless: shuffle one of two **twins**, columns that say nearly the same, and the model still has the other.
# (`households` and `total_bedrooms`: would you call them twins?) Which columns to keep, the validation error decides.
#
# ## What is there to beat?
#
# Before anyone trains a network, four baselines, all fitted on the training rows and judged once on the test rows. The
# mean needs no features; the straight line gets the census columns, the trees the ratios as well. **Guess the order.**

# %%
ready = pd.concat([table, category], axis=1)
census = ready[[c for c in ready if c in frame or c in category]]
trees = {"smoke": 10, "quick": 100, "full": 300}[preset]
models = {
    "linear regression": (LinearRegression(), census),
    "random forest": (RandomForestRegressor(trees, n_jobs=-1, random_state=seed), ready),
    "gradient boosting": (HistGradientBoostingRegressor(random_state=seed), ready),
}

# %%
actual = price.iloc[test_rows]
scores = {"mean of the training rows": rmse(actual, np.full(len(actual), y_train.mean()))}
for name, (model, columns) in models.items():
    model.fit(columns.iloc[train_rows], y_train)
    scores[name] = rmse(actual, model.predict(columns.iloc[test_rows]))

# %%
best = min(scores, key=scores.get)
title = f"The number to beat is {best}'s: ${scores[best]:,.0f}"
fig = bars(scores, title, "test RMSE (US dollars, less is better)", best, houses.origin)
show(fig, alt=f"Test RMSE in dollars: {', '.join(f'{k} {v:,.0f}' for k, v in scores.items())}")

# %% [markdown]
# In lesson 11 a network meets these numbers, trained on several ranks.
#
# **Exercises:** [`exercises/10_house_prices_data.ipynb`](../exercises/10_house_prices_data.ipynb). You will fill gaps without a leak, build the honest feature of
# the neighbourhood yourself, and choose five columns that do nearly as well as all.
#
# ## Take-away
#
# > Split before you learn anything, and learn every number (medians, means, weights) from the training rows only. A
# > leak raises no exception; it only makes the result look better than it is. And whether a column matters depends on
# > which columns stand beside it.
#
# **To go further**
# - R. Kelley Pace, Ronald Barry: *Sparse Spatial Autoregressions*, Statistics & Probability Letters 33(3), 1997: where
#   the data come from.
# - scikit-learn, [Permutation feature importance](https://scikit-learn.org/stable/modules/permutation_importance.html):
#   what it can mislead you about.
# - scikit-learn, [Common pitfalls](https://scikit-learn.org/stable/common_pitfalls.html): leaks, and how pipelines
#   prevent them.
