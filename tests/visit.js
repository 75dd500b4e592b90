// What visit.py does inside JupyterLab, through the application object that --expose-app-in-browser gives.
// Every function waits for the promise of what it did: "idle" on the screen may come too early or never.
window.cdt = {
  app: () => window.jupyterapp,

  // Opens a notebook with a kernel already chosen: else a hidden dialog asks for one and everything waits.
  open: async (path) => {
    await cdt.app().restored;
    const panel = await cdt.app().commands.execute('docmanager:open',
      {path, factory: 'Notebook', kernel: {name: 'python3'}});
    await panel.context.ready;
    await panel.sessionContext.ready;
    if (!panel.sessionContext.session?.kernel) throw new Error(`${path} has no kernel`);
    cdt.app().shell.activateById(panel.id);
    return panel.content.widgets.length;
  },

  panel: () => cdt.app().shell.currentWidget,
  cells: () => Array.from(cdt.panel().content.widgets),

  runAll: async () => { await cdt.app().commands.execute('notebook:run-all-cells'); },

  // Puts text into a cell and runs it, as a learner would.
  put: async (index, source) => {
    cdt.cells()[index].model.sharedModel.setSource(source);
    await cdt.run(index);
  },

  run: async (index) => {
    const notebook = cdt.panel().content;
    notebook.activeCellIndex = index;
    notebook.deselectAll();
    await cdt.app().commands.execute('notebook:run-cell');
  },

  // What a cell shows: text of its streams and errors.
  text: (index) => cdt.cells()[index].model.outputs.toJSON()
    .map(o => o.text ?? (o.output_type === 'error' ? `${o.ename}: ${o.evalue}` : '')).flat().join(''),

  // Errors, text on stderr, code cells that did not run, and pictures whose words were lost on the way to the page.
  problems: () => {
    const found = [];
    cdt.cells().filter(c => c.model.type === 'code').forEach((cell, i) => {
      const name = `code cell ${i + 1}`;
      if (cell.model.executionCount === null) found.push(`${name} did not run`);
      for (const o of cell.model.outputs.toJSON()) {
        if (o.output_type === 'error') found.push(`${name}: ${o.ename}: ${o.evalue}`.slice(0, 300));
        if (o.name === 'stderr') found.push(`${name} wrote to stderr: ${o.text}`.slice(0, 300));
      }
    });
    return found;
  },

  show: (index) => {
    cdt.panel().content.activeCellIndex = index;
    cdt.cells()[index].node.scrollIntoView({block: 'start'});
  },

  close: async () => {
    const panel = cdt.panel();
    await panel.context.save();
    await panel.sessionContext.shutdown();
    panel.dispose();
  },
};
